"""Malformed objects beside a few valid ones: they delay no others, and each has a condition.

The real manager reconciles the objects of `tests.support.malformed_objects` in simulated time. Writes are checked as
the API server checks them. Computing time, which simulated time does not show, is measured between two iterations of
the loop and compared with a pass over all objects.

Requirements B11, C6, D2, D5, D10.
"""

import asyncio
import gc
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from random import Random
from typing import Any

import pytest
from kubernetes.aio.client.exceptions import ApiException
from pydantic import ValidationError
from tests.support.builders import (
    Json,
    condition,
    generator_object,
    node_object,
    pool_object,
    report,
    requires,
    service,
    slice_object,
    speech,
    stopped,
)
from tests.support.malformed_objects import (
    broken,
    language_codes,
    largest_objects,
    report_with_many_language_sets,
    valid_generator,
    valid_node,
    valid_pool,
    valid_slice,
)
from tests.support.simulated_fleet import FakeApi, FakeRedis, Fleet, SimulatedLoop, applied, operator, simulated, until

from hotpool.api.capability import CapabilityStatus
from hotpool.api.generator import GeneratorStatus
from hotpool.api.meta import ApiModel
from hotpool.api.pool import PoolSpec, PoolStatus
from hotpool.api.slice import NodePoolSlice
from hotpool.core.cluster_cache import ClusterCache
from hotpool.core.generators.admission import pool_name
from hotpool.core.model import Kind
from hotpool.core.planning.pool_plan import plan_pool
from hotpool.kube.decode import DecodeError, decode
from hotpool.observability.metrics import FAILURES

pytestmark = pytest.mark.timeout(240)

VALID_NODES = [f"valid-{number}" for number in range(4)]
TEAM_SELECTOR = {"matchLabels": {"team": "valid"}}
ALL_READY = dict.fromkeys(VALID_NODES, "Ready")
PAIR_POOL = pool_name("speech", "zh-en")
MIX = (Kind.NODE,) * 5 + (Kind.POOL,) * 3 + (Kind.GENERATOR, Kind.SLICE)
EXPECTED_FAILURES = {"StaleError", "RetryableError", "RejectedError", "UnavailableError"}


SCHEMAS: dict[Kind, dict[str, type[ApiModel]]] = {
    Kind.NODE: {"status": CapabilityStatus},
    Kind.POOL: {"spec": PoolSpec, "status": PoolStatus},
    Kind.GENERATOR: {"status": GeneratorStatus},
    Kind.SLICE: {"": NodePoolSlice},
}
"""Kind → field that the operator writes and its model; the empty name is the whole object."""


class StrictApi(FakeApi):
    """Validates the operator's writes by the schema, and records refused ones."""

    def __init__(self) -> None:
        super().__init__()
        self.refused: list[tuple[Kind, str, str]] = []

    async def create(self, kind: Kind, body: Json) -> Json:
        """Validate the object, then call the fake."""
        self._validate(kind, body["metadata"]["name"], body)
        return await super().create(kind, body)

    async def patch(self, kind: Kind, name: str, body: Any, *, apply: bool) -> Json:
        """Validate the object, then call the fake."""
        fields = {item["path"].strip("/"): item["value"] for item in body} if isinstance(body, list) else body
        self._validate(kind, name, fields)
        return await super().patch(kind, name, body, apply=apply)

    async def patch_status(self, kind: Kind, name: str, body: Json, *, apply: bool) -> Json:
        """Validate the status, with the conditions of other writers, then call the fake."""
        if apply and name in self.objects[kind]:
            conditions = applied(self.objects[kind][name].get("status") or {}, body["status"])["conditions"]
            self._validate(kind, name, {"status": {"conditions": [condition()] * len(conditions)}})
        self._validate(kind, name, body)
        return await super().patch_status(kind, name, body, apply=apply)

    def _validate(self, kind: Kind, name: str, body: Json) -> None:
        try:
            for field, model in SCHEMAS[kind].items():
                if field in body or not field:
                    part = body[field] if field else body
                    json.dumps(part, ensure_ascii=False).encode()
                    model.model_validate(part)
        except (ValidationError, UnicodeError) as error:
            self.refused.append((kind, name, str(error)))
            raise ApiException(status=422, reason="Invalid") from None


class LoopIterations:
    """The longest computing time between two iterations of the loop, which delays every ready task."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._last: float | None = None

    def __call__(self) -> None:
        spent = time.process_time()
        if self._last is not None:
            self.longest = max(self.longest, spent - self._last)
        self._last = spent


@contextmanager
def measured() -> Iterator[LoopIterations]:
    """Measure the iterations of the running loop, without garbage collection."""
    loop, iterations = asyncio.get_running_loop(), LoopIterations()
    assert isinstance(loop, SimulatedLoop)
    gc.collect()
    gc.disable()
    loop.on_each_iteration(iterations)
    try:
        yield iterations
    finally:
        loop.on_each_iteration(None)
        gc.enable()


def full_pass_seconds(api: FakeApi) -> float:
    """Return the computing time to decode, cache and plan all objects once, as after a start."""
    began, cache = time.process_time(), ClusterCache(gate_open=True)
    for kind, objects in api.objects.items():
        for body in objects.values():
            if not isinstance(decoded := decode(kind, body), DecodeError):
                cache.upsert(decoded, 0.0)
    for name, pool in cache.pools.items():
        plan_pool(pool, cache.slices[name], cache.matches.known_types, 0.0, "")
    return time.process_time() - began


@asynccontextmanager
async def valid_fleet(api: FakeApi, redis: FakeRedis) -> AsyncIterator[Fleet]:
    """Run an operator with four nodes of one team, their pool and generator, until after its first resync."""
    api.put(pool_object("llm", requires={**requires("llm"), "nodeSelector": TEAM_SELECTOR}))
    template = {"spec": {"requires": {"nodeSelector": TEAM_SELECTOR}}}
    api.put(generator_object("speech", template=template))
    for name in VALID_NODES:
        api.put(node_object(name, report_of(1), labels={"team": "valid"}))
    async with operator(api, redis) as fleet:
        await fleet.beating(11)
        assert api.members("llm") == api.members(PAIR_POOL) == ALL_READY
        yield fleet
        assert api.members("llm") == api.members(PAIR_POOL) == ALL_READY
        assert redis.pools["llm"].ready == redis.pools[PAIR_POOL].ready == set(VALID_NODES)


def report_of(sequence: int, *, llm: bool = True) -> Json:
    services = speech("zh", "en", sequence=sequence)["services"]
    own = service("q", "llm") if llm else stopped("q", "llm")
    return report(*services, own, sequence=sequence)


async def stop_and_start(fleet: Fleet, redis: FakeRedis, sequence: int) -> float:
    """Stop and start a service of a valid node; return the longest delay in Redis or slices, in simulated seconds."""
    delays: list[float] = []
    api = fleet.api
    fleet.beat()
    for more, llm in ((0, False), (1, True)):
        known = api.objects[Kind.NODE][VALID_NODES[0]]
        api.put({**known, "status": {**known["status"], "report": report_of(sequence + more, llm=llm)}})
        expected = set(VALID_NODES) if llm else set(VALID_NODES[1:])
        redis_delay = await until(lambda wanted=expected: redis.pools["llm"].ready == wanted)  # type: ignore[misc]
        slice_delay = await until(lambda wanted=expected: set(api.members("llm")) & {*VALID_NODES} == wanted)  # type: ignore[misc]
        delays += [redis_delay, redis_delay + slice_delay]
        await asyncio.sleep(1.5)
    return max(delays)


def failures() -> dict[str, float]:
    """Return error → number of failed reconciles of keys so far."""
    samples = [sample for metric in FAILURES.collect() for sample in metric.samples]
    return {next(iter(s.labels.values())): s.value for s in samples if s.name.endswith("_total")}


def malformed(rng: Random, name: str) -> tuple[Kind, Json]:
    """Return one random object, half of the time within the schema."""
    kind = rng.choice(MIX)
    if rng.random() < 0.5:
        return kind, _parsed(broken(rng, kind, name))
    match kind:
        case Kind.NODE:
            return kind, valid_node(rng, name)
        case Kind.POOL:
            return kind, valid_pool(rng, name)
        case Kind.GENERATOR:
            return kind, valid_generator(rng, name)
        case Kind.SLICE:
            return kind, valid_slice(rng, name, rng.choice(("llm", PAIR_POOL, "absent")))
        case Kind.KUBE_NODE:
            raise ValueError("hotpool does not write v1 Nodes")


def without_condition(api: FakeApi) -> list[tuple[Kind, str]]:
    """Return the objects without a condition Ready or Paused."""
    stored = {kind: {name: api.conditions(kind, name) for name in api.objects[kind]} for kind in Kind}
    return [
        (kind, name)
        for kind in (Kind.NODE, Kind.POOL, Kind.GENERATOR)
        for name, conditions in stored[kind].items()
        if not {"Ready", "Paused"} & conditions.keys()
    ]


def _parsed(body: Json) -> Json:
    """Return the object without NaN and infinity, which no API server can store."""
    return dict(json.loads(json.dumps(body), parse_constant=lambda _: None))


async def run_malformed_objects(seed: int, count: int) -> None:
    """Send waves of 125 objects, of which all but the last are deleted again; then the largest objects."""
    rng, api, redis = Random(seed), StrictApi(), FakeRedis()  # noqa: S311 - examples, no secret.
    before, waves = failures(), []
    async with valid_fleet(api, redis) as fleet:
        with measured() as iterations:
            for wave in range(count):
                waves.append([malformed(rng, f"x-{wave}-{number}") for number in range(125)])
                for number, (_, body) in enumerate(waves[-1]):
                    api.put(body)
                    if number % 10 == 0:
                        await asyncio.sleep(0)
                assert await stop_and_start(fleet, redis, 2 * wave + 2) < 5
                for kind, body in waves[-2] if wave else ():
                    if body["metadata"]["name"] in api.objects[kind]:
                        api.delete(kind, body["metadata"]["name"])
            for _, _, body in largest_objects():
                api.put(body)
                await asyncio.sleep(0)
            assert await stop_and_start(fleet, redis, 100) < 5
            await fleet.beating(60)
            written = len(api.writes)
            await fleet.beating(60)
        assert api.writes[written:][:3] == []
        assert api.refused[:3] == [], "the operator wrote an invalid object"
        assert iterations.longest < 2 * full_pass_seconds(api)
        assert without_condition(api)[:3] == []
    after = failures()
    assert {error for error in after if after[error] != before.get(error)} <= EXPECTED_FAILURES


@pytest.mark.parametrize("seed", range(4))
@simulated
async def test_hundreds_of_malformed_objects_delay_no_others_and_each_has_a_condition(seed: int) -> None:
    await run_malformed_objects(seed, 4)


@simulated
async def test_thousands_of_foreign_slices_do_not_delay_their_pool() -> None:
    """Each write takes 10 ms, so that a change behind all deletions would wait for 20 s."""
    api, redis = FakeApi(), FakeRedis()
    async with valid_fleet(api, redis) as fleet:
        api.delay = 0.01
        for number in range(2000):
            api.put(slice_object("llm", 0, "absent", name=f"foreign-{number}"))
        assert await stop_and_start(fleet, redis, 2) < 2.5
        assert len(api.slices("llm")) > 1000
        assert await stop_and_start(fleet, redis, 4) < 2.5
        for _ in range(20):
            await fleet.beating(3)
        assert list(api.slices("llm")) == ["llm-0"]


@simulated
async def test_generators_of_a_hundred_thousand_pools_are_capped_with_a_condition_and_delay_no_others() -> None:
    api, redis = FakeApi(), FakeRedis()
    async with valid_fleet(api, redis) as fleet:
        api.delay = 0.01
        everything = language_codes(320)
        for number in range(2):
            api.put(node_object(f"boaster-{number}", speech(*everything)))
        for number in range(8):
            api.put(generator_object(f"boast-{number}", maxPools=2000))
        api.put(generator_object("few", maxPools=7))
        api.put(generator_object("sets", rule={"languageSets": {"maxLanguages": 8}}))
        api.put(node_object("knot", report_with_many_language_sets(60)))
        await asyncio.sleep(0.5)
        assert await stop_and_start(fleet, redis, 2) < 1.6
        api.put(
            generator_object(
                "late", rule={"hash": {"count": 2}}, template={"spec": {"requires": {"nodeSelector": TEAM_SELECTOR}}}
            )
        )
        in_time = {pool_name("late", str(part)) for part in (0, 1)}
        assert await until(lambda: in_time <= api.objects[Kind.POOL].keys()) < 5
        assert await stop_and_start(fleet, redis, 4) < 1.6
        assert api.conditions(Kind.GENERATOR, "few") == {
            "Ready": ("True", "Generated"),
            "NotAdmitted": ("True", "MaxPools"),
            "TooManyKeys": ("True", "TooManyKeys"),
        }
        assert sum(name.startswith("few-") for name in api.objects[Kind.POOL]) == 7
        assert "LanguageSetsTruncated" in api.conditions(Kind.GENERATOR, "sets")


@simulated
async def test_an_object_full_of_foreign_conditions_has_an_event_until_there_is_room() -> None:
    api, redis = StrictApi(), FakeRedis()
    async with valid_fleet(api, redis) as fleet:
        others = [condition(f"example.org/Type{number}") for number in range(24)]
        api.put(node_object("full", report_of(1), conditions=others))
        await fleet.beating(40)
        assert "Ready" not in api.conditions(Kind.NODE, "full")
        assert {reason for reason, _ in api.event_notes("full")} >= {"WriteRefused"}
        known = api.objects[Kind.NODE]["full"]
        api.put({**known, "status": {**known["status"], "conditions": others[:22]}})
        await fleet.beating(1)
        assert {"Ready", "Draining"} <= api.conditions(Kind.NODE, "full").keys()


@simulated
async def test_cycles_of_owners_and_generators_end_in_conditions_without_further_writes() -> None:
    """Pools owned by each other or by themselves; pools that name another generator; names in use."""
    api, redis = StrictApi(), FakeRedis()
    async with valid_fleet(api, redis) as fleet:
        for name, owner in (("left", "right"), ("right", "left"), ("self", "self"), ("child", "speech")):
            body = pool_object(name, requires=requires("llm"))
            kind = "NodeCapability" if name == "child" else "NodePool"
            body["metadata"]["ownerReferences"] = [
                {"apiVersion": "v1", "kind": kind, "name": owner, "uid": f"uid-{owner}"}
            ]
            api.put(body)
        for number, by in enumerate(("speech", "claimer", "absent")):
            api.put(pool_object(f"claims-{number}", generated={"by": by, "kind": "LanguagePair", "key": "zh-en"}))
        api.put(pool_object(pool_name("claimer", "zh-en"), generated={"by": "speech", "kind": "Hash", "key": "zh-en"}))
        template = {"spec": {"requires": {"nodeSelector": TEAM_SELECTOR, "languagePairs": {"allOf": ["zh-en"]}}}}
        api.put(generator_object("claimer", template=template))
        owned = generator_object("owned", rule={"hash": {"count": 1}}, minNodes=1_000_000)
        owned["metadata"]["ownerReferences"] = [
            {"apiVersion": "v1", "kind": "NodePoolGenerator", "name": "owned", "uid": "uid-owned"},
            {"apiVersion": "v1", "kind": "NodePool", "name": "left", "uid": "uid-left"},
        ]
        api.put(owned)
        await fleet.beating(30)
        written = len(api.writes)
        await fleet.beating(60)
        assert api.writes[written:] == []
        assert without_condition(api)[:3] == []
        assert api.conditions(Kind.GENERATOR, "claimer")["NameTaken"] == ("True", "NotOurs")
        assert api.conditions(Kind.GENERATOR, "owned")["NotAdmitted"] == ("True", "MinNodes")
        assert api.members("left") == api.members("self") == ALL_READY


@simulated
async def test_requirements_that_no_node_can_meet_have_conditions_and_counts() -> None:
    api, redis, rng = StrictApi(), FakeRedis(), Random(1)  # noqa: S311 - examples, no secret.
    selector = {"matchExpressions": [{"key": "team", "operator": o} for o in ("Exists", "DoesNotExist")]}
    never = {
        "both-ways": {"nodeSelector": selector},
        "long-key": {"nodeSelector": {"matchLabels": {"k" * 5000: "v"}}},
        "nothing": {},
        "no-such-type": requires("xn--80ak6aa92e"),
        "excluded": {"matchAll": True},
    }
    async with valid_fleet(api, redis) as fleet:
        for name, required in never.items():
            api.put(pool_object(name, requires=required, excludeNodes=VALID_NODES if name == "excluded" else []))
        for number in range(40):
            api.put(valid_pool(rng, f"pool-{number}"))
        await fleet.beating(30)
        found = {name: api.conditions(Kind.POOL, name) for name in never}
        assert {name: conditions["Ready"] for name, conditions in found.items()} == {
            "both-ways": ("False", "TooFewMembers"),
            "long-key": ("False", "InvalidSpec"),
            "nothing": ("False", "EmptyRequirements"),
            "no-such-type": ("False", "TooFewMembers"),
            "excluded": ("False", "TooFewMembers"),
        }
        assert found["no-such-type"]["UnknownRequirement"] == ("True", "UnknownType")
        counted = {name: api.objects[Kind.POOL][name]["status"]["excluded"] for name in ("both-ways", "excluded")}
        assert counted == {
            "both-ways": [{"reason": "NodeSelector", "count": 4}],
            "excluded": [{"reason": "ExcludedByName", "count": 4}],
        }
        assert without_condition(api)[:3] == []
