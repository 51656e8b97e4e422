"""Time from a stop to slices, Redis and EndpointSlices of pools, and cost of an idle heartbeat; all from one run.

Starts a cluster, a Redis and an operator of its own. Reports are patched as agents patch them, while 200 Leases are
renewed. A stop is timed from before its patch is sent until a watch of the slices delivers it, and until a keyspace
notification of Redis does. The floor is the time of the API server alone: from the same moment until a watch of the
NodeCapability delivers the patch itself. The pools get Services, and their EndpointSlices a watch, when all else is
measured.
"""

import asyncio
import statistics
import time
from collections import defaultdict
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import redis.asyncio
from benchmarks.cluster import fleets, pools
from benchmarks.nodes import INTERVAL, Nodes, address
from benchmarks.watch_latency import ArrivalTimes, Observations, custom_objects
from kubernetes.aio import client, config

from hotpool.kube.decode_service import POOL_LABEL
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
RANGE: Final = "10.0.0.0/8"
SERVICES: Final = {"services": {"enabled": True}, "endpoints": {"allowedCIDRs": [RANGE]}}


class Bench:
    """One run on one fleet."""

    def __init__(self, fleet: Fleet, api: client.ApiClient) -> None:
        self._fleet = fleet
        self._api = api
        self._nodes = Nodes(api, fleet.namespace, LEASES, lambda node: f"type-{node % POOLS}")
        self._lookup = Lookup.from_url(fleet.redis_url, namespace=fleet.namespace)

    async def run(self) -> dict[str, float]:
        """Return all figures: milliseconds, and writes per flip or heartbeat."""
        await self._nodes.create()
        renewals = asyncio.create_task(self._nodes.beat())
        await self._quiet()
        rounds: list[tuple[Cost, Cost]] = []
        for _ in range(IDLE_ROUNDS):
            with_heartbeats = await self._cost()
            renewals.cancel()
            rounds.append((with_heartbeats, await self._cost()))
            renewals = asyncio.create_task(self._nodes.beat())
            await asyncio.sleep(INTERVAL)
        heartbeats = LEASES / INTERVAL * IDLE_SECONDS
        figures = {
            "idle_heartbeat_cpu_ms": statistics.median(busy.cpu_ms - idle.cpu_ms for busy, idle in rounds) / heartbeats,
            "idle_heartbeat_writes": sum(busy.writes for busy, _ in rounds) / (heartbeats * IDLE_ROUNDS),
        }
        figures |= await self._flips()
        figures |= await self._service_flips()
        renewals.cancel()
        await self._lookup.close()
        return figures

    async def _quiet(self) -> None:
        """Wait until the operator writes nothing more."""
        while (await self._cost()).writes:
            pass

    async def _cost(self) -> "Cost":
        """Return the operator's CPU and writes in IDLE_SECONDS without changes.

        IDLE_SECONDS is a multiple of the operator's own rounds (Redis and probe Lease: 5 s, election: 1 s).
        """
        await asyncio.sleep(1)
        spent, writes = self._operator_cpu(), sum(self._fleet.writes().values())
        await asyncio.sleep(IDLE_SECONDS)
        return Cost((self._operator_cpu() - spent) * 1000, sum(self._fleet.writes().values()) - writes)

    def _operator_cpu(self) -> float:
        """Return the CPU seconds of all its threads, to the nanosecond (Linux schedstat)."""
        assert self._fleet.operator
        tasks = Path(f"/proc/{self._fleet.operator.pid}/task").glob("*/schedstat")
        return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9

    async def _flips(self) -> dict[str, float]:
        """Stop and start nodes in turn, each of a pool of its own; only stops are timed."""
        arrivals = ArrivalTimes()
        watchers = [
            asyncio.create_task(arrivals.watch(self._list("nodepoolslices"), _in_slice)),
            asyncio.create_task(arrivals.watch(self._list("nodecapabilities"), _in_report)),
            asyncio.create_task(self._watch_redis(arrivals)),
        ]
        await asyncio.sleep(1)
        spent: dict[str, list[float]] = defaultdict(list)
        before = sum(self._fleet.writes().values())
        for flip in range(2 * STOPS):
            node, ready = flip % POOLS, (flip // POOLS) % 2 == 1
            expected = {where: arrivals.expect(where, node, ready=ready) for where in ("report", "slice", "redis")}
            started = time.monotonic()
            await self._nodes.report(node, ready=ready)
            async with asyncio.timeout(DEADLINE_SECONDS):
                for where, arrival in expected.items():
                    at = await arrival
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

    async def _service_flips(self) -> dict[str, float]:
        """Give each pool a Service, then time stops until a watch of their EndpointSlices delivers them."""
        await asyncio.to_thread(self._fleet.apply, *pools(POOLS, services=True))
        await self._quiet()
        arrivals, spent = ArrivalTimes(), list[float]()
        listing = partial(
            client.DiscoveryV1Api(self._api).list_namespaced_endpoint_slice_without_preload_content,
            self._fleet.namespace,
            label_selector=POOL_LABEL,
        )
        watcher = asyncio.create_task(arrivals.watch(listing, _in_endpoint_slice))
        await asyncio.sleep(1)
        for flip in range(2 * STOPS):
            node, ready = flip % POOLS, (flip // POOLS) % 2 == 1
            arrival = arrivals.expect("endpointslice", node, ready=ready)
            started = time.monotonic()
            await self._nodes.report(node, ready=ready)
            async with asyncio.timeout(DEADLINE_SECONDS):
                at = await arrival
            if not ready:
                spent.append((at - started) * 1000)
            await asyncio.sleep(PAUSE_SECONDS)
        watcher.cancel()
        return percentiles("stop_to_endpointslice_ours_ms", spent)

    def _list(self, plural: str) -> Any:
        return custom_objects(self._api, self._fleet.namespace, plural)

    async def _watch_redis(self, arrivals: ArrivalTimes) -> None:
        """Record every change of a pool's members in Redis."""
        async with redis.asyncio.from_url(self._fleet.redis_url) as server:
            await server.config_set("notify-keyspace-events", "KA")
            subscription = server.pubsub()
            await subscription.psubscribe("__keyspace@0__:*:pool:*:ready")
            async for message in subscription.listen():
                if message["type"] != "pmessage":
                    continue
                number = int(message["channel"].decode().split(":pool:pool-")[1].split(":")[0])
                found = await self._lookup.members(f"pool-{number}")
                arrivals.record("redis", number, f"node-{number}" in found.ready)


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU and writes of the operator in one period."""

    cpu_ms: float
    writes: float


def _in_slice(body: Any) -> Observations:
    number = int(body["metadata"]["name"].split("-")[1])
    yield "slice", number, any(member["node"] == f"node-{number}" for member in body["members"])


def _in_endpoint_slice(body: Any) -> Observations:
    number = int(body["metadata"]["labels"][POOL_LABEL].split("-")[1])
    ready = {item["addresses"][0] for item in body["endpoints"] or () if item["conditions"]["ready"]}
    yield "endpointslice", number, address(number) in ready


def _in_report(body: Any) -> Observations:
    number = int(body["metadata"]["name"].split("-")[1])
    yield "report", number, body["status"]["report"]["capabilities"][0]["ready"]


async def _measure(fleet: Fleet, kubeconfig: Path) -> dict[str, float]:
    api: Any = await config.new_client_from_config(str(kubeconfig))
    async with api:
        return await Bench(fleet, api).run()


def measure() -> dict[str, float]:
    """Return all figures of one run."""
    with fleets(values=SERVICES) as ([fleet], kubeconfig):
        fleet.apply(*pools(POOLS))
        fleet.start_operator("operator", "--services", "--endpoints-allowed-cidrs", RANGE)
        fleet.wait_leading()
        return asyncio.run(_measure(fleet, kubeconfig))
