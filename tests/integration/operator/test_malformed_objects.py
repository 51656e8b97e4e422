"""Hostile objects beside a few honest ones: nobody is held up, and each hostile one is explained (D, B11).

The real Manager reconciles the objects of `tests.support.malformed_objects` in simulated time. Writes are checked as
the API server checks them. What takes computing time, which simulated time does not show, is measured between
two turns of the loop and compared with a pass over all objects.

Requirements C6, D2, D5, D10.
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
    codes,
    huge,
    speech_of_sets,
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

HONEST = [f"honest-{number}" for number in range(4)]
MINE = {"matchLabels": {"team": "honest"}}
ALL_READY = dict.fromkeys(HONEST, "Ready")
OWN_PAIR = pool_name("speech", "zh-en")
MIX = (Kind.NODE,) * 5 + (Kind.POOL,) * 3 + (Kind.GENERATOR, Kind.SLICE)
EXPECTED_FAILURES = {"StaleError", "RetryableError", "RejectedError"}


SCHEMAS: dict[Kind, dict[str, type[ApiModel]]] = {
    Kind.NODE: {"status": CapabilityStatus},
    Kind.POOL: {"spec": PoolSpec, "status": PoolStatus},
    Kind.GENERATOR: {"status": GeneratorStatus},
    Kind.SLICE: {"": NodePoolSlice},
}
"""The part of an object that the operator writes, and its model; the empty word is the whole."""


class StrictApi(FakeApi):
    """Checks what the operator writes by the schema, and keeps what it refused."""

    def __init__(self) -> None:
        super().__init__()
        self.refused: list[tuple[Kind, str, str]] = []

    async def create(self, kind: Kind, body: Json) -> Json:
        """As the fake, with the schema."""
        self._valid(kind, body["metadata"]["name"], body)
        return await super().create(kind, body)

    async def patch(self, kind: Kind, name: str, body: Any, *, apply: bool) -> Json:
        """As the fake, with the schema."""
        whole = {item["path"].strip("/"): item["value"] for item in body} if isinstance(body, list) else body
        self._valid(kind, name, whole)
        return await super().patch(kind, name, body, apply=apply)

    async def patch_status(self, kind: Kind, name: str, body: Json, *, apply: bool) -> Json:
        """As the fake, with the schema; conditions of others take the room of ours."""
        if apply and name in self.objects[kind]:
            conditions = applied(self.objects[kind][name].get("status") or {}, body["status"])["conditions"]
            self._valid(kind, name, {"status": {"conditions": [condition()] * len(conditions)}})
        self._valid(kind, name, body)
        return await super().patch_status(kind, name, body, apply=apply)

    def _valid(self, kind: Kind, name: str, body: Json) -> None:
        try:
            for field, model in SCHEMAS[kind].items():
                if field in body or not field:
                    part = body[field] if field else body
                    json.dumps(part, ensure_ascii=False).encode()
                    model.model_validate(part)
        except (ValidationError, UnicodeError) as error:
            self.refused.append((kind, name, str(error)))
            raise ApiException(status=422, reason="Invalid") from None


class Turns:
    """The computing time between any two turns of the loop: how long a task that wants to run again must wait."""

    def __init__(self) -> None:
        self.longest = 0.0
        self._last: float | None = None

    def __call__(self) -> None:
        spent = time.process_time()
        if self._last is not None:
            self.longest = max(self.longest, spent - self._last)
        self._last = spent


@contextmanager
def measured() -> Iterator[Turns]:
    """Measures the turns of the running loop, without collections of garbage."""
    loop, turns = asyncio.get_running_loop(), Turns()
    assert isinstance(loop, SimulatedLoop)
    gc.collect()
    gc.disable()
    loop.each_turn(turns)
    try:
        yield turns
    finally:
        loop.each_turn(None)
        gc.enable()


def full_pass(api: FakeApi) -> float:
    """Computing time in which all objects that are there are decoded, observed and planned once, as after a start."""
    began, state = time.process_time(), ClusterCache(gate_open=True)
    for kind, objects in api.objects.items():
        for body in objects.values():
            if not isinstance(seen := decode(kind, body), DecodeError):
                state.upsert(seen, 0.0)
    for name, pool in state.pools.items():
        plan_pool(pool, state.slices[name], state.known_types, 0.0, "")
    return time.process_time() - began


@asynccontextmanager
async def honest_fleet(api: FakeApi, redis: FakeRedis) -> AsyncIterator[Fleet]:
    """Four nodes of one team, their pool, and a generator of their language pairs; settled, after the first audit."""
    api.put(pool_object("llm", requires={**requires("llm"), "nodeSelector": MINE}))
    template = {"spec": {"requires": {"nodeSelector": MINE}}}
    api.put(generator_object("speech", template=template))
    for name in HONEST:
        api.put(node_object(name, can(1), labels={"team": "honest"}))
    async with operator(api, redis) as fleet:
        await fleet.beating(11)
        assert api.members("llm") == api.members(OWN_PAIR) == ALL_READY
        yield fleet
        assert api.members("llm") == api.members(OWN_PAIR) == ALL_READY
        assert redis.pools["llm"].ready == redis.pools[OWN_PAIR].ready == set(HONEST)


def can(sequence: int, *, llm: bool = True) -> Json:
    spoken = speech("zh", "en", sequence=sequence)
    own = service("q", "llm") if llm else stopped("q", "llm")
    return report(*spoken["services"], own, sequence=sequence)


async def flip(fleet: Fleet, redis: FakeRedis, sequence: int) -> float:
    """An honest service stops and starts; the longest that Redis or slices took to say so, in simulated seconds."""
    took: list[float] = []
    api = fleet.api
    fleet.beat()
    for more, llm in ((0, False), (1, True)):
        known = api.objects[Kind.NODE][HONEST[0]]
        api.put({**known, "status": {**known["status"], "report": can(sequence + more, llm=llm)}})
        expected = set(HONEST) if llm else set(HONEST[1:])
        took.append(await until(lambda expected=expected: redis.pools["llm"].ready == expected))  # type: ignore[misc]
        took.append(took[-1] + await until(lambda expected=expected: set(api.members("llm")) & {*HONEST} == expected))  # type: ignore[misc]
        await asyncio.sleep(1.5)
    return max(took)


def failures() -> dict[str, float]:
    """Failures of keys so far, by the kind of error."""
    samples = [sample for metric in FAILURES.collect() for sample in metric.samples]
    return {next(iter(s.labels.values())): s.value for s in samples if s.name.endswith("_total")}


def hostile(rng: Random, name: str) -> tuple[Kind, Json]:
    """One object: anything at all, or what the schema lets in."""
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
            return kind, valid_slice(rng, name, rng.choice(("llm", OWN_PAIR, "nobody")))
        case Kind.KUBE_NODE:
            raise ValueError("not ours to spoil")


def unexplained(api: FakeApi) -> list[tuple[Kind, str]]:
    """The objects on which no condition says how they are."""
    told = {kind: {name: api.conditions(kind, name) for name in api.objects[kind]} for kind in Kind}
    return [
        (kind, name)
        for kind in (Kind.NODE, Kind.POOL, Kind.GENERATOR)
        for name, conditions in told[kind].items()
        if not {"Ready", "Paused"} & conditions.keys()
    ]


def _parsed(body: Json) -> Json:
    """The object without numbers that JSON does not have: no API server can store one, and it would equal nothing."""
    return dict(json.loads(json.dumps(body), parse_constant=lambda _: None))


async def hold_up(seed: int, count: int) -> None:
    """Send waves of 125 objects, of which all but the last are deleted again; then the largest of all."""
    rng, api, redis = Random(seed), StrictApi(), FakeRedis()  # noqa: S311 - examples, no secret.
    before, waves = failures(), []
    async with honest_fleet(api, redis) as fleet:
        with measured() as turns:
            for wave in range(count):
                waves.append([hostile(rng, f"x-{wave}-{number}") for number in range(125)])
                for number, (_, body) in enumerate(waves[-1]):
                    api.put(body)
                    if number % 10 == 0:
                        await asyncio.sleep(0)
                assert await flip(fleet, redis, 2 * wave + 2) < 5
                for kind, body in waves[-2] if wave else ():
                    if body["metadata"]["name"] in api.objects[kind]:
                        api.delete(kind, body["metadata"]["name"])
            for _, _, body in huge():
                api.put(body)
                await asyncio.sleep(0)
            assert await flip(fleet, redis, 100) < 5
            await fleet.beating(60)
            written = len(api.writes)
            await fleet.beating(60)
        assert api.writes[written:][:3] == []
        assert api.refused[:3] == [], "what is refused for ever must be said"
        assert turns.longest < 2 * full_pass(api)
        assert unexplained(api)[:3] == []
    after = failures()
    assert {error for error in after if after[error] != before.get(error)} <= EXPECTED_FAILURES


@pytest.mark.parametrize("seed", range(4))
@simulated
async def test_hundreds_of_hostile_objects_hold_up_nobody_and_each_is_explained(seed: int) -> None:
    await hold_up(seed, 4)


@simulated
async def test_thousands_of_slices_that_strangers_made_do_not_hold_up_their_pool() -> None:
    """Each write takes its time, so that what waits for the last deletion would wait for 20 s."""
    api, redis = FakeApi(), FakeRedis()
    async with honest_fleet(api, redis) as fleet:
        api.delay = 0.01
        for number in range(2000):
            api.put(slice_object("llm", 0, "nobody", name=f"strange-{number}"))
        assert await flip(fleet, redis, 2) < 2.5
        assert len(api.slices("llm")) > 1000
        assert await flip(fleet, redis, 4) < 2.5
        for _ in range(20):
            await fleet.beating(3)
        assert list(api.slices("llm")) == ["llm-0"]


@simulated
async def test_generators_of_a_hundred_thousand_pools_are_capped_say_so_and_hold_up_nobody() -> None:
    api, redis = FakeApi(), FakeRedis()
    async with honest_fleet(api, redis) as fleet:
        api.delay = 0.01
        everything = codes(320)
        for number in range(2):
            api.put(node_object(f"boaster-{number}", speech(*everything)))
        for number in range(8):
            api.put(generator_object(f"boast-{number}", maxPools=2000))
        api.put(generator_object("few", maxPools=7))
        api.put(generator_object("sets", rule={"languageSets": {"maxLanguages": 8}}))
        api.put(node_object("knot", speech_of_sets(60)))
        await asyncio.sleep(0.5)
        assert await flip(fleet, redis, 2) < 1.6
        api.put(
            generator_object(
                "late", rule={"hash": {"count": 2}}, template={"spec": {"requires": {"nodeSelector": MINE}}}
            )
        )
        in_time = {pool_name("late", str(part)) for part in (0, 1)}
        assert await until(lambda: in_time <= api.objects[Kind.POOL].keys()) < 5
        assert await flip(fleet, redis, 4) < 1.6
        said = api.conditions(Kind.GENERATOR, "few")
        assert said == {
            "Ready": ("True", "Generated"),
            "NotAdmitted": ("True", "MaxPools"),
            "TooManyKeys": ("True", "TooManyKeys"),
        }
        assert sum(name.startswith("few-") for name in api.objects[Kind.POOL]) == 7
        assert "LanguageSetsTruncated" in api.conditions(Kind.GENERATOR, "sets")


@simulated
async def test_where_others_left_no_room_for_our_conditions_an_event_says_so_until_there_is_some() -> None:
    api, redis = StrictApi(), FakeRedis()
    async with honest_fleet(api, redis) as fleet:
        others = [condition(f"example.org/Type{number}") for number in range(16)]
        api.put(node_object("full", can(1), conditions=others))
        await fleet.beating(40)
        assert "Ready" not in api.conditions(Kind.NODE, "full")
        assert {reason for reason, _ in api.told("full")} >= {"WriteRefused"}
        known = api.objects[Kind.NODE]["full"]
        api.put({**known, "status": {**known["status"], "conditions": others[:14]}})
        await fleet.beating(1)
        assert {"Ready", "Draining"} <= api.conditions(Kind.NODE, "full").keys()


@simulated
async def test_cycles_of_owners_and_claims_end_in_conditions_and_not_in_writes() -> None:
    """Pools owned by each other and by themselves; pools that claim to be another generator's; names that are taken."""
    api, redis = StrictApi(), FakeRedis()
    async with honest_fleet(api, redis) as fleet:
        for name, owner in (("left", "right"), ("right", "left"), ("self", "self"), ("child", "speech")):
            body = pool_object(name, requires=requires("llm"))
            kind = "NodeCapability" if name == "child" else "NodePool"
            body["metadata"]["ownerReferences"] = [
                {"apiVersion": "v1", "kind": kind, "name": owner, "uid": f"uid-{owner}"}
            ]
            api.put(body)
        for number, by in enumerate(("speech", "claimer", "nobody")):
            api.put(pool_object(f"claims-{number}", generated={"by": by, "kind": "LanguagePair", "key": "zh-en"}))
        api.put(pool_object(pool_name("claimer", "zh-en"), generated={"by": "speech", "kind": "Hash", "key": "zh-en"}))
        template = {"spec": {"requires": {"nodeSelector": MINE, "languagePairs": {"allOf": ["zh-en"]}}}}
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
        assert unexplained(api)[:3] == []
        assert api.conditions(Kind.GENERATOR, "claimer")["NameTaken"] == ("True", "NotOurs")
        assert api.conditions(Kind.GENERATOR, "owned")["NotAdmitted"] == ("True", "MinNodes")
        assert api.members("left") == api.members("self") == ALL_READY


@simulated
async def test_requirements_that_nobody_can_meet_are_explained_by_condition_and_counts() -> None:
    api, redis, rng = StrictApi(), FakeRedis(), Random(1)  # noqa: S311 - examples, no secret.
    selector = {"matchExpressions": [{"key": "team", "operator": o} for o in ("Exists", "DoesNotExist")]}
    never = {
        "both-ways": {"nodeSelector": selector},
        "long-key": {"nodeSelector": {"matchLabels": {"k" * 5000: "v"}}},
        "nothing": {},
        "no-such-type": requires("xn--80ak6aa92e"),
        "excluded": {"matchAll": True},
    }
    async with honest_fleet(api, redis) as fleet:
        for name, required in never.items():
            api.put(pool_object(name, requires=required, excludeNodes=HONEST if name == "excluded" else []))
        for number in range(40):
            api.put(valid_pool(rng, f"pool-{number}"))
        await fleet.beating(30)
        found = {name: api.conditions(Kind.POOL, name) for name in never}
        assert {name: said["Ready"] for name, said in found.items()} == {
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
        assert unexplained(api)[:3] == []
