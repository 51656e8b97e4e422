"""`make bench`: how fast a stop reaches slices and Redis, and what an idle heartbeat costs; all from one run.

Starts a cluster, a Redis and an operator of its own. Reports are patched as agents patch them, 200 Leases beat beside
them. A stop is timed from before its patch is sent until a watch of the slices, and a keyspace notification of Redis,
tell of it. The floor is what the API server alone needs: from the same moment until a watch of the NodeCapability
tells of the patch itself. Prints a table; `--json FILE` also writes one flat object.
"""

import asyncio
import json
import statistics
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import redis.asyncio
from kubernetes.aio import client, config

from hotpool.api.meta import LEASE_LABEL, LEASE_PREFIX, timestamp
from hotpool.lookup import Lookup
from localfleet.figures import percentiles
from localfleet.fleet import GROUP, Fleet
from localfleet.kind import kind_program, kubectl_program
from localfleet.redis_server import RedisServer

CLUSTER: Final = "hotpool-bench"
LEASES: Final = 200
INTERVAL: Final = 15
STOPS: Final = 200
POOLS: Final = 25
PAUSE_SECONDS: Final = 0.06
IDLE_SECONDS: Final = 10.0
IDLE_ROUNDS: Final = 3
DEADLINE_SECONDS: Final = 10.0
_MERGE: Final = "application/merge-patch+json"


def report(node: int, sequence: int, *, ready: bool) -> dict[str, Any]:
    """A report of a node with one service of its own type."""
    state, reason = ("Running", None) if ready else ("Stopped", "Stopped")
    services = [{"id": "service", "type": f"type-{node % POOLS}", "state": state}]
    capability = {"type": f"type-{node % POOLS}", "ready": ready, "reason": reason}
    return {
        "schemaVersion": 1,
        "agentVersion": "bench",
        "instance": f"instance-{node}",
        "session": "session",
        "epoch": 1,
        "sequence": sequence,
        "time": timestamp(),
        "intervalSeconds": INTERVAL,
        "summary": "1/1" if ready else "0/1",
        "services": services,
        "capabilities": [{**capability, "services": ["service"] if ready else []}],
    }


class Bench:
    """One run on one fleet."""

    def __init__(self, fleet: Fleet, api: client.ApiClient) -> None:
        self._fleet = fleet
        self._objects = client.CustomObjectsApi(api)
        self._leases = client.CoordinationV1Api(api)
        self._api = api
        self._lookup = Lookup.from_url(fleet.redis_url, namespace=fleet.namespace)
        self._sequence = 1
        self._beaten = 0

    async def run(self) -> dict[str, float]:
        """All figures: milliseconds, and writes for each flip or heartbeat."""
        await asyncio.gather(*(self._create(node) for node in range(LEASES)))
        beating = asyncio.create_task(self._beat())
        await self._quiet()
        rounds: list[tuple[Cost, Cost]] = []
        for _ in range(IDLE_ROUNDS):
            heard = await self._cost()
            beating.cancel()
            rounds.append((heard, await self._cost()))
            beating = asyncio.create_task(self._beat())
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

    async def _create(self, node: int) -> None:
        where = (*GROUP, self._fleet.namespace, "nodecapabilities")
        kind = {"apiVersion": "/".join(GROUP), "kind": "NodeCapability"}
        await self._objects.create_namespaced_custom_object(*where, {**kind, "metadata": {"name": f"node-{node}"}})
        await self._report(node, ready=True)
        spec = {"holderIdentity": f"instance-{node}/1", "leaseDurationSeconds": 3 * INTERVAL, "renewTime": timestamp()}
        meta = {"name": f"{LEASE_PREFIX}node-{node}", "labels": {LEASE_LABEL: "true"}}
        lease: Any = {"metadata": meta, "spec": spec}
        await self._leases.create_namespaced_lease(self._fleet.namespace, lease)

    async def _report(self, node: int, *, ready: bool) -> None:
        self._sequence += 1
        body = {"status": {"report": report(node, self._sequence, ready=ready)}}
        where = (*GROUP, self._fleet.namespace, "nodecapabilities", f"node-{node}")
        await self._objects.patch_namespaced_custom_object_status(*where, body, _content_type=_MERGE)

    async def _beat(self) -> None:
        """Renew every Lease once in an interval, spread evenly, until cancelled; goes on where it was cancelled."""
        number = 0
        started = time.monotonic()
        while True:
            self._beaten += 1
            name = f"{LEASE_PREFIX}node-{self._beaten % LEASES}"
            body = {"spec": {"renewTime": timestamp()}}
            await self._leases.patch_namespaced_lease(name, self._fleet.namespace, body, _content_type=_MERGE)
            number += 1
            await asyncio.sleep(max(0.0, started + number * INTERVAL / LEASES - time.monotonic()))

    async def _quiet(self) -> None:
        """Wait until the operator has nothing more to write."""
        while (await self._cost()).writes:
            pass

    async def _cost(self) -> "Cost":
        """What the operator spends and writes in a while in which nothing changes.

        The while holds whole numbers of the operator's own rounds (Redis: 5 s, election: 2 s).
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
            asyncio.create_task(self._watch("nodepoolslices", told, _in_slice)),
            asyncio.create_task(self._watch("nodecapabilities", told, _in_report)),
            asyncio.create_task(self._watch_redis(told)),
        ]
        await asyncio.sleep(1)
        spent: dict[str, list[float]] = defaultdict(list)
        before = sum(self._fleet.writes().values())
        for flip in range(2 * STOPS):
            node, ready = flip % POOLS, (flip // POOLS) % 2 == 1
            expected = {where: told.expect(where, node, ready=ready) for where in ("report", "slice", "redis")}
            started = time.monotonic()
            await self._report(node, ready=ready)
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

    async def _watch(self, plural: str, told: "Told", read: Callable[[Any], tuple[str, int, bool]]) -> None:
        """Tell of every event of a kind."""
        listed: Any = await self._objects.list_namespaced_custom_object(*GROUP, self._fleet.namespace, plural)
        answer: Any = await self._objects.list_namespaced_custom_object_without_preload_content(
            *GROUP,
            self._fleet.namespace,
            plural,
            watch=True,
            resource_version=listed["metadata"]["resourceVersion"],
            _request_timeout=600,
        )
        async for line in _lines(answer):
            told.tell(*read(json.loads(line)["object"]))

    async def _watch_redis(self, told: "Told") -> None:
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


class Told:
    """When a watcher was told what is waited for."""

    def __init__(self) -> None:
        self._expected: dict[tuple[str, int, bool], asyncio.Future[float]] = {}

    def expect(self, where: str, node: int, *, ready: bool) -> asyncio.Future[float]:
        """The moment (monotonic seconds) at which `where` will be told that a node is ready, or is not."""
        future: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._expected[where, node, ready] = future
        return future

    def tell(self, where: str, node: int, ready: bool) -> None:  # noqa: FBT001 - the value told.
        """A watcher was told."""
        future = self._expected.pop((where, node, ready), None)
        if future:
            future.set_result(time.monotonic())


def _in_slice(body: Any) -> tuple[str, int, bool]:
    number = int(body["metadata"]["name"].split("-")[1])
    return "slice", number, any(member["node"] == f"node-{number}" for member in body["members"])


def _in_report(body: Any) -> tuple[str, int, bool]:
    number = int(body["metadata"]["name"].split("-")[1])
    return "report", number, body["status"]["report"]["capabilities"][0]["ready"]


async def _lines(answer: Any) -> AsyncIterator[bytes]:
    rest = b""
    async for chunk in answer.content.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            if line:
                yield line


async def _measure(fleet: Fleet, kubeconfig: Path) -> dict[str, float]:
    api: Any = await config.new_client_from_config(str(kubeconfig))
    async with api:
        return await Bench(fleet, api).run()


def _pools() -> list[dict[str, Any]]:
    head = {"apiVersion": "/".join(GROUP), "kind": "NodePool"}
    return [
        {**head, "metadata": {"name": f"pool-{n}"}, "spec": {"requires": {"types": [{"type": f"type-{n}"}]}}}
        for n in range(POOLS)
    ]


def measure() -> dict[str, float]:
    """All figures of one run."""
    kind = kind_program()
    kubeconfig = Path(tempfile.mkdtemp(prefix="hotpool-bench-")) / "kubeconfig"
    subprocess.run([str(kind), "create", "cluster", "--name", CLUSTER, "--kubeconfig", str(kubeconfig)], check=True)
    try:
        with RedisServer() as redis:
            fleet = Fleet(kubeconfig, kubectl_program(kind), "bench", redis.url)
            fleet.install()
            fleet.apply(*_pools())
            fleet.start_operator()
            fleet.wait_leading()
            try:
                return asyncio.run(_measure(fleet, kubeconfig))
            finally:
                fleet.close()
    finally:
        subprocess.run([str(kind), "delete", "cluster", "--name", CLUSTER], check=True)
