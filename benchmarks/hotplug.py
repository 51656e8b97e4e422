"""`make bench`: how fast a stop reaches slices and Redis, and what an idle heartbeat costs; all from one run.

Starts a cluster, a Redis and an operator of its own. Reports are patched as agents patch them, 200 Leases beat beside
them. A stop is timed from before its patch is sent until a watch of the slices, and a keyspace notification of Redis,
tell of it. The floor is what the API server alone needs: from the same moment until a watch of the NodeCapability
tells of the patch itself. Prints a table; `--json FILE` also writes one flat object.
"""

import asyncio
import statistics
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import redis.asyncio
from benchmarks.cluster import fleets, pools
from benchmarks.nodes import INTERVAL, Nodes
from benchmarks.watch_latency import Facts, Told, ours
from kubernetes.aio import client, config

from hotpool.lookup import Lookup
from localfleet.fleet import Fleet
from localfleet.metrics_reader import percentiles

LEASES: Final = 200
STOPS: Final = 200
POOLS: Final = 25
PAUSE_SECONDS: Final = 0.06
IDLE_SECONDS: Final = 10.0
IDLE_ROUNDS: Final = 3
DEADLINE_SECONDS: Final = 10.0


class Bench:
    """One run on one fleet."""

    def __init__(self, fleet: Fleet, api: client.ApiClient) -> None:
        self._fleet = fleet
        self._api = api
        self._nodes = Nodes(api, fleet.namespace, LEASES, lambda node: f"type-{node % POOLS}")
        self._lookup = Lookup.from_url(fleet.redis_url, namespace=fleet.namespace)

    async def run(self) -> dict[str, float]:
        """All figures: milliseconds, and writes for each flip or heartbeat."""
        await self._nodes.create()
        beating = asyncio.create_task(self._nodes.beat())
        await self._quiet()
        rounds: list[tuple[Cost, Cost]] = []
        for _ in range(IDLE_ROUNDS):
            heard = await self._cost()
            beating.cancel()
            rounds.append((heard, await self._cost()))
            beating = asyncio.create_task(self._nodes.beat())
            await asyncio.sleep(INTERVAL)
        beats = LEASES / INTERVAL * IDLE_SECONDS
        figures = {
            "idle_heartbeat_cpu_ms": statistics.median(heard.cpu_ms - silent.cpu_ms for heard, silent in rounds)
            / beats,
            "idle_heartbeat_writes": sum(heard.writes for heard, _ in rounds) / (beats * IDLE_ROUNDS),
        }
        figures |= await self._flips()
        beating.cancel()
        await self._lookup.close()
        return figures

    async def _quiet(self) -> None:
        """Wait until the operator has nothing more to write."""
        while (await self._cost()).writes:
            pass

    async def _cost(self) -> "Cost":
        """What the operator spends and writes in a while in which nothing changes.

        The while holds whole numbers of the operator's own rounds (Redis and canary: 5 s, election: 1 s).
        """
        await asyncio.sleep(1)
        spent, writes = self._operator_cpu(), sum(self._fleet.writes().values())
        await asyncio.sleep(IDLE_SECONDS)
        return Cost((self._operator_cpu() - spent) * 1000, sum(self._fleet.writes().values()) - writes)

    def _operator_cpu(self) -> float:
        """CPU seconds of all its threads, to the nanosecond (Linux schedstat)."""
        assert self._fleet.operator
        tasks = Path(f"/proc/{self._fleet.operator.pid}/task").glob("*/schedstat")
        return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9

    async def _flips(self) -> dict[str, float]:
        """Stop and start nodes in turn, each of a pool of its own; only stops are timed."""
        told = Told()
        watchers = [
            asyncio.create_task(told.watch(self._list("nodepoolslices"), _in_slice)),
            asyncio.create_task(told.watch(self._list("nodecapabilities"), _in_report)),
            asyncio.create_task(self._watch_redis(told)),
        ]
        await asyncio.sleep(1)
        spent: dict[str, list[float]] = defaultdict(list)
        before = sum(self._fleet.writes().values())
        for flip in range(2 * STOPS):
            node, ready = flip % POOLS, (flip // POOLS) % 2 == 1
            expected = {where: told.expect(where, node, ready=ready) for where in ("report", "slice", "redis")}
            started = time.monotonic()
            await self._nodes.report(node, ready=ready)
            async with asyncio.timeout(DEADLINE_SECONDS):
                for where, moment in expected.items():
                    at = await moment
                    if not ready:
                        spent[where].append((at - started) * 1000)
            await asyncio.sleep(PAUSE_SECONDS)
        await asyncio.sleep(2)
        writes = (sum(self._fleet.writes().values()) - before) / (2 * STOPS)
        for watcher in watchers:
            watcher.cancel()
        return {
            **percentiles("stop_to_slice_ms", spent["slice"]),
            **percentiles("stop_to_redis_ms", spent["redis"]),
            **percentiles("floor_ms", spent["report"]),
            "flip_writes": writes,
        }

    def _list(self, plural: str) -> Any:
        return ours(self._api, self._fleet.namespace, plural)

    async def _watch_redis(self, told: Told) -> None:
        """Tell of every pool whose members changed in Redis."""
        async with redis.asyncio.from_url(self._fleet.redis_url) as server:
            await server.config_set("notify-keyspace-events", "KA")
            subscription = server.pubsub()
            await subscription.psubscribe("__keyspace@0__:*:pool:*:ready")
            async for message in subscription.listen():
                if message["type"] != "pmessage":
                    continue
                number = int(message["channel"].decode().split(":pool:pool-")[1].split(":")[0])
                found = await self._lookup.members(f"pool-{number}")
                told.tell("redis", number, f"node-{number}" in found.ready)


@dataclass(frozen=True, slots=True)
class Cost:
    """The operator's, in one while."""

    cpu_ms: float
    writes: float


def _in_slice(body: Any) -> Facts:
    number = int(body["metadata"]["name"].split("-")[1])
    yield "slice", number, any(member["node"] == f"node-{number}" for member in body["members"])


def _in_report(body: Any) -> Facts:
    number = int(body["metadata"]["name"].split("-")[1])
    yield "report", number, body["status"]["report"]["capabilities"][0]["ready"]


async def _measure(fleet: Fleet, kubeconfig: Path) -> dict[str, float]:
    api: Any = await config.new_client_from_config(str(kubeconfig))
    async with api:
        return await Bench(fleet, api).run()


def measure() -> dict[str, float]:
    """All figures of one run."""
    with fleets() as ([fleet], kubeconfig):
        fleet.apply(*pools(POOLS))
        fleet.start_operator()
        fleet.wait_leading()
        return asyncio.run(_measure(fleet, kubeconfig))
