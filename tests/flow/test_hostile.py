"""10,000 malformed or hostile objects beside a few well-behaved ones, through the real Reconciler (issue: no crash, no
stall of others, a condition that explains).

In simulated time, so that what is measured as delay is waiting behind others, never this machine's slowness. How long
the loop is blocked is measured in real time, by the loop itself, against a floor in the same run.
"""

import asyncio
import gc
import itertools
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from random import Random
from typing import Any, cast

import pytest
import structlog
from tests.builders import Json, condition, node_object, pool_object, report, requires, service, speech, stopped
from tests.flow.fakes import FakeApi, FakeRedis, Fleet, SimulatedLoop, copied, operator, simulated, until
from tests.hostile import broken, valid_node, valid_pool, valid_slice

from hotpool import logs
from hotpool.core.model import Kind
from hotpool.metrics import FAILURES, REJECTED

pytestmark = pytest.mark.timeout(600)

GOOD = tuple(f"good-{number}" for number in range(4))
WRITE_SECONDS = 0.004
"""How long the API server takes for a write."""
import os

NODES, POOLS, SLICES = [int(x * float(os.environ.get("SC", "1"))) for x in (8700, 1000, 300)]
EXPLAINS = {
    Kind.NODE: {
        "Live", "Suspect", "Offline", "AwaitingReport", "AwaitingHeartbeat", "InvalidReport", "Leaving", "Draining",
    },
    Kind.POOL: {"EnoughMembers", "TooFewMembers", "DryRun", "RequiresNothing", "InvalidSpec"},
}  # fmt: skip


@pytest.fixture(autouse=True)
def log_as_in_production() -> Iterator[None]:
    """A line of JSON each; the pretty tracebacks of a terminal would take longer than the work."""
    logs.configure("info")
    yield
    structlog.reset_defaults()


class TimedApi(FakeApi):
    """A FakeApi that says how much real time it takes itself, which is not the operator's."""

    def __init__(self) -> None:
        super().__init__()
        self.spent = 0.0
        self.texts: dict[tuple[Kind, str], str] = {}

    @contextmanager
    def own_time(self) -> Iterator[None]:
        """What is done within is the test's own work."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.spent += time.perf_counter() - began

    def _store(self, kind: Kind, body: Json) -> Json:
        with self.own_time():
            return super()._store(kind, body)

    async def list_namespaced_custom_object(self, _g: str, _v: str, _n: str, plural: str, **_: Any) -> Json:
        await asyncio.sleep(0)
        with self.own_time():
            return {"items": copied(list(self.objects[Kind(plural)].values())), "metadata": {}}


class Blocks:
    """The longest time that the loop gave nobody else a turn."""

    def __init__(self, api: TimedApi) -> None:
        self._api = api
        self.longest = 0.0
        self._mark()

    def _mark(self) -> None:
        self._began, self._spent = time.perf_counter(), self._api.spent

    def turn(self) -> None:
        """One turn of the loop is over."""
        took = time.perf_counter() - self._began - (self._api.spent - self._spent)
        self.longest = max(self.longest, took)
        self._mark()


@contextmanager
def blocks(api: TimedApi) -> Iterator[Blocks]:
    """Measure turns within."""
    loop = cast("SimulatedLoop", asyncio.get_running_loop())
    measured = Blocks(api)
    gc.collect()
    gc.disable()
    loop.each_turn(measured.turn)
    try:
        yield measured
    finally:
        loop.each_turn(None)
        gc.enable()


def parsing(bodies: list[Json]) -> float:
    """Seconds that the parser needs for the one of these that takes longest."""
    longest = 0.0
    for text in map(json.dumps, bodies):
        began = time.perf_counter()
        json.loads(text)
        longest = max(longest, time.perf_counter() - began)
    return longest


def good_report(sequence: int = 1, *, runs: bool = True) -> Json:
    spoken = speech("zh", "en")["services"]
    return report(*spoken, service("q", "llm") if runs else stopped("q", "llm"), sequence=sequence)


def good_fleet() -> TimedApi:
    """Four nodes, and pools of theirs."""
    api = TimedApi()
    api.put(pool_object("llm", requires=requires("llm")))
    api.put(pool_object("zh-en", requires={"languagePairs": {"allOf": ["zh-en"]}}))
    said = [condition(), condition("Draining", "False", "NotRequested")]
    for name in GOOD:
        api.put(node_object(name, good_report(), labels={"good": "yes"}, conditions=said))
    return api


class Life:
    """The well-behaved part of a fleet: it stops and starts services, and looks how long its slices take to follow."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._sequence = 1
        self.delays: list[float] = []
        self._running = True

    async def beat(self) -> None:
        """The good nodes beat, the others are silent."""
        while True:
            self._fleet.beat(*GOOD)
            await asyncio.sleep(5)

    async def live(self) -> None:
        """Stop and start, one node after the other."""
        for name in itertools.cycle(GOOD):
            for runs in (False, True):
                await asyncio.sleep(1.1)
                self._sequence += 1
                api = self._fleet.api
                body = api.objects[Kind.NODE][name]
                content = good_report(self._sequence, runs=runs)
                api.put({**body, "status": {**body["status"], "report": content}})
                self.delays.append(await until(lambda name=name, runs=runs: self._stands(name) is runs))  # type: ignore[misc]

    def _stands(self, name: str) -> bool:
        with cast("TimedApi", self._fleet.api).own_time():
            slices = self._fleet.api.objects[Kind.SLICE]
            own = itertools.takewhile(slices.__contains__, (f"llm-{number}" for number in itertools.count()))
            return any(member["node"] == name for of in own for member in slices[of]["members"])


@asynccontextmanager
async def living(fleet: Fleet) -> AsyncIterator[Life]:
    life = Life(fleet)
    tasks = [asyncio.create_task(life.beat()), asyncio.create_task(life.live())]
    try:
        yield life
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(error) for error in ended} == {asyncio.CancelledError}, ended


def hostile(rng: Random) -> list[Json]:
    """10,000 objects, in an order in which kinds and sorts are mixed."""
    nodes = [broken(rng, Kind.NODE, f"n-{i}") if i % 2 else valid_node(rng, f"n-{i}") for i in range(NODES)]
    pools = [broken(rng, Kind.POOL, f"p-{i}") if i % 2 else valid_pool(rng, f"p-{i}") for i in range(POOLS)]
    claimed = ("llm", "zh-en", "nobody", "p-0")
    slices = [
        broken(rng, Kind.SLICE, f"s-{i}") if i % 2 else valid_slice(rng, f"s-{i}", rng.choice(claimed))
        for i in range(SLICES - 2)
    ]
    slices += [valid_slice(rng, "zh-en-1", "nobody"), valid_slice(rng, "llm-x", "llm")]
    found = [*nodes, *pools, *slices]
    rng.shuffle(found)
    return found


def reason(body: Json) -> str:
    """The reason of condition Ready; of what junk else may stand there nothing is said."""
    status = body.get("status")
    found = status.get("conditions") if isinstance(status, dict) else None
    said = (
        [c for c in found or () if isinstance(c, dict) and c.get("type") == "Ready"] if isinstance(found, list) else []
    )
    return str(said[0].get("reason")) if said else ""


def unexplained(api: FakeApi, kind: Kind) -> list[str]:
    """Names of objects without a Ready condition of a reason that we know."""
    return [name for name, body in api.objects[kind].items() if reason(body) not in EXPLAINS[kind]]


def counted(metric: Any) -> Counter[str]:
    """Label → count."""
    samples = [sample for family in metric.collect() for sample in family.samples if sample.name.endswith("_total")]
    return Counter({next(iter(sample.labels.values())): int(sample.value) for sample in samples})


@simulated
async def test_d3_10_000_hostile_objects_stall_nobody_and_each_has_a_condition_that_explains() -> None:
    rng = Random(5)  # noqa: S311 - examples, no secret.
    bodies = hostile(rng)
    api, redis = good_fleet(), FakeRedis()
    failures, floor = counted(FAILURES), parsing(bodies)
    async with operator(api, redis) as fleet:
        api.delay = WRITE_SECONDS
        await until(lambda: set(api.members("llm")) == set(GOOD))
        async with living(fleet) as life:
            with blocks(api) as measured:
                for body in bodies:
                    with api.own_time():
                        api.put(body)
                    await asyncio.sleep(0.002)
                await asyncio.sleep(60)
        print(
            f"delays {sorted(life.delays)[-5:]} of {len(life.delays)}; floor {floor * 1000:.1f} ms block {measured.longest * 1000:.1f} ms"
        )
        print("failures", counted(FAILURES) - failures, "rejected", counted(REJECTED))
        print(
            {kind: len(unexplained(api, kind)) for kind in EXPLAINS},
            unexplained(api, Kind.NODE)[:5],
            unexplained(api, Kind.POOL)[:5],
        )
        print(
            Counter(reason(b) for b in api.objects[Kind.NODE].values()),
            Counter(reason(b) for b in api.objects[Kind.POOL].values()),
        )
        print(len(api.objects[Kind.SLICE]), sorted(api.objects[Kind.SLICE])[:50])
        assert set(api.members("llm")) >= set(GOOD[1:])
