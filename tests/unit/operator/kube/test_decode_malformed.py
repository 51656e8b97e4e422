"""Any JSON in any place of an object: a value or a DecodeError, in bounded time, and every plan from it is valid.

Covers the whole path without I/O: identify, decode, upsert, plan. Requirements B11 (an invalid item drops only that
item; likewise for pools, slices and generators), D2, D11.
"""

import copy
import gc
import json
import time
from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.builders import (
    Json,
    generator_object,
    node_object,
    pool_object,
    report,
    service,
    slice_object,
    speech,
)
from tests.support.json_mutation import changed, paths, without
from tests.support.malformed_objects import (
    COMPLETE_OBJECTS,
    JUNK,
    broken,
    largest_objects,
    valid_node,
    valid_pool,
    valid_slice,
)

from hotpool.api.capability import CapabilityStatus
from hotpool.api.generator import GeneratorStatus
from hotpool.api.meta import MAX_CONDITIONS, ApiModel
from hotpool.api.pool import PoolStatus
from hotpool.core.cluster_cache import ClusterCache
from hotpool.core.model import CUSTOM_KINDS, Generator, Kind, Liveness, Node, NodeView, Observed, Pool, Slice
from hotpool.core.planning.generator_plan import plan_generator
from hotpool.core.planning.pool_plan import plan_node, plan_pool
from hotpool.kube.decode import DecodeError, decode, identify
from hotpool.kube.decode_report import MAX_VALUES

NOW = "2026-11-23T20:00:00.000000Z"
CLASSES = {Kind.NODE: Node, Kind.POOL: Pool, Kind.SLICE: Slice, Kind.GENERATOR: Generator}
NEIGHBOURS = tuple(
    decode(kind, body)
    for kind, body in (
        (Kind.NODE, node_object("beside", speech("zh", "en"), labels={"site": "x"})),
        (Kind.POOL, pool_object("beside", requires={"types": [{"type": "asr"}]})),
        (Kind.SLICE, slice_object("beside", 0, "beside")),
        (Kind.GENERATOR, generator_object("beside")),
    )
)

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(), max_size=5)
    | st.sampled_from(JUNK),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def assert_storable(model: ApiModel) -> None:
    """Assert that the model is within the bounds of the schema and can be encoded."""
    body = json.dumps(model.model_dump(by_alias=True, mode="json"))
    assert type(model).model_validate(json.loads(body.encode()))


def assert_all_planned(cache: ClusterCache) -> None:
    """Assert that the plans of all objects can be computed and stored."""
    for record in cache.nodes.values():
        assert_storable(CapabilityStatus(conditions=plan_node(record.view, NOW).conditions))
    for name, pool in cache.pools.items():
        assert_storable(plan_pool(pool, cache.slices.get(name, {}), cache.matches.known_types, 0.0, NOW).status)
    for generator in cache.generators.values():
        own = cache.owners.pools_of(generator.generator.meta.uid)
        plan = plan_generator(generator, own, cache.pools, 0.0, NOW)
        assert_storable(plan.status)
        for spec in (*plan.create.values(), *plan.correct.values()):
            assert_storable(spec)


def decode_and_plan(kind: Kind, body: Any) -> Observed | DecodeError:
    """Decode an object, add it to a cache with valid ones and plan all. Return the decoded value."""
    identify(body)
    found = decode(kind, body)
    if isinstance(found, DecodeError):
        assert (found.kind, isinstance(found.name, str), bool(found.reason)) == (kind, True, True)
        assert len(found.name) + len(found.reason) < 5000
        return found
    assert isinstance(found, CLASSES[kind])
    cache = ClusterCache(gate_open=True)
    for seen in NEIGHBOURS:
        assert not isinstance(seen, DecodeError)
        cache.upsert(seen, 0.0)
    cache.upsert(found, 0.0)
    assert_all_planned(cache)
    return found


@pytest.mark.parametrize("kind", CUSTOM_KINDS)
@pytest.mark.timeout(240)
def test_junk_in_each_place_is_a_value_and_the_rest_can_be_planned(kind: Kind) -> None:
    for place in paths(COMPLETE_OBJECTS[kind]):
        for junk in JUNK:
            decode_and_plan(kind, changed(COMPLETE_OBJECTS[kind], place, junk))


@pytest.mark.parametrize("kind", CUSTOM_KINDS)
@pytest.mark.timeout(120)
def test_each_field_can_be_missing(kind: Kind) -> None:
    for place in paths(COMPLETE_OBJECTS[kind])[1:]:
        decode_and_plan(kind, without(COMPLETE_OBJECTS[kind], place))


@pytest.mark.parametrize("kind", CUSTOM_KINDS)
@given(data=st.data())
@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
def test_any_json_in_several_places_is_a_value(kind: Kind, data: st.DataObject) -> None:
    body: Any = COMPLETE_OBJECTS[kind]
    for _ in range(data.draw(st.integers(1, 4))):
        body = changed(body, data.draw(st.sampled_from(paths(COMPLETE_OBJECTS[kind]))), data.draw(JSON))
    decode_and_plan(kind, body)


@given(seed=st.integers(0, 2**32))
@settings(max_examples=60)
def test_an_object_that_the_schema_accepts_is_never_a_decode_error(seed: int) -> None:
    rng = Random(seed)  # noqa: S311 - examples, no secret.
    for kind, body in (
        (Kind.NODE, valid_node(rng, "n")),
        (Kind.POOL, valid_pool(rng, "p")),
        (Kind.SLICE, valid_slice(rng, "p-0", "q")),
    ):
        assert not isinstance(decode_and_plan(kind, body), DecodeError)


@given(seed=st.integers(0, 2**32), kind=st.sampled_from(CUSTOM_KINDS))
@settings(max_examples=200)
def test_an_object_that_no_schema_checked_is_a_value(seed: int, kind: Kind) -> None:
    decode_and_plan(kind, broken(Random(seed), kind, "x"))  # noqa: S311 - examples, no secret.


# An invalid item must not affect the other items.


@pytest.mark.parametrize("bad", [None, 7, {}, {"type": "Ready"}, {"type": [], "status": "True"}, {"status": "True"}])
def test_an_invalid_condition_is_dropped_alone(bad: Any) -> None:
    body = copy.deepcopy(COMPLETE_OBJECTS[Kind.NODE])
    body["status"]["conditions"].insert(0, bad)
    found = decode(Kind.NODE, body)
    assert isinstance(found, Node)
    assert (list(found.conditions), bool(found.report)) == (["Ready"], True)


@pytest.mark.parametrize("kind", [Kind.POOL, Kind.GENERATOR])
@pytest.mark.parametrize("bad", [7, {"conditions": [{"type": 1}]}, {"members": -1, "pools": -1}])
def test_an_invalid_status_counts_as_empty_and_the_spec_is_kept(kind: Kind, bad: Any) -> None:
    found = decode(kind, {**COMPLETE_OBJECTS[kind], "status": bad})
    assert isinstance(found, Pool | Generator)
    assert found.status == {Kind.POOL: PoolStatus(), Kind.GENERATOR: GeneratorStatus()}[kind]
    good = decode(kind, COMPLETE_OBJECTS[kind])
    assert isinstance(good, Pool | Generator)
    assert found.spec == good.spec


def test_the_problem_of_a_spec_is_in_the_status_however_long_its_keys_are() -> None:
    found = decode_and_plan(
        Kind.POOL, pool_object("p", requires={"nodeSelector": {"matchLabels": {"k" * 100_000: "v"}}})
    )
    assert isinstance(found, Pool)
    cache = ClusterCache(gate_open=True)
    cache.upsert(found, 0.0)
    status = plan_pool(cache.pools["p"], {}, {}, 0.0, NOW).status
    assert [(c.type, c.reason) for c in status.conditions] == [("Ready", "InvalidSpec")]
    assert "matchLabels" in status.conditions[0].message


def test_a_paused_pool_has_the_condition_paused_beside_the_most_foreign_conditions() -> None:
    foreign = [
        {**COMPLETE_OBJECTS[Kind.POOL]["status"]["conditions"][0], "type": f"example.org/T{n}"}
        for n in range(MAX_CONDITIONS)
    ]
    body = {**pool_object("p", paused=True), "status": {"conditions": foreign}}
    found = decode_and_plan(Kind.POOL, body)
    assert isinstance(found, Pool)
    cache = ClusterCache(gate_open=True)
    cache.upsert(found, 0.0)
    status = plan_pool(cache.pools["p"], {}, {}, 0.0, NOW).status
    assert "Paused" in {c.type for c in status.conditions}
    assert len(status.conditions) <= MAX_CONDITIONS


@pytest.mark.parametrize("more", [0, 1])
def test_a_report_with_more_values_than_an_agent_writes_is_invalid(more: int) -> None:
    """Each list is within the schema, but decisions about the node would take time for their product."""
    full, rest = divmod(MAX_VALUES + more, 513)
    sizes = [*[512] * full, rest - 1]  # each id counts once more among the ready services
    content = report(*(service(f"s{number}", "llm", languages=["zh"] * size) for number, size in enumerate(sizes)))
    found = decode_and_plan(Kind.NODE, node_object("n", content))
    assert isinstance(found, Node)
    conditions = {c.type: c for c in plan_node(NodeView(found, Liveness.LIVE), NOW).conditions}
    assert (found.report is None, conditions["Ready"].reason == "InvalidReport") == (bool(more), bool(more))


# Time is proportional to size.


def seconds(work: Callable[[], object], rounds: int = 3) -> float:
    """Return the shortest of several runs, without garbage collections."""
    gc.disable()
    try:
        spent = []
        for _ in range(rounds):
            began = time.process_time()
            work()
            spent.append(time.process_time() - began)
    finally:
        gc.enable()
    return min(spent)


MAX_TIMES_PARSER = 150.0
"""Longest time to decode, in times of the JSON parser: 2 to 40 are usual; non-linear code takes more."""


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("kind", "body"), [pytest.param(k, b, id=what) for what, k, b in largest_objects()])
def test_the_time_to_decode_is_bounded_by_the_size_of_the_object(kind: Kind, body: Json) -> None:
    text = json.dumps(body)
    parser = seconds(partial(json.loads, text)) + 0.000_5
    ours = seconds(partial(decode, kind, body))
    assert ours < MAX_TIMES_PARSER * parser, (
        f"{len(text)} characters: parsed in {parser:.4f} s, decoded in {ours:.4f} s"
    )
