"""`make bench`: how fast a stop reaches slices and Redis, and what an idle heartbeat costs; all from one run.

Starts a cluster, a Redis and an operator of its own. Reports are patched as agents patch them, 200 Leases beat beside
them. Prints a table; `--json FILE` also writes one flat object.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import psutil
from kubernetes.aio import client, config

from hotpool.api.meta import LEASE_LABEL, LEASE_PREFIX, timestamp
from hotpool.lookup import Lookup
from localfleet.fleet import GROUP, Fleet
from localfleet.kind import kind_program, kubectl_program
from localfleet.redis_server import RedisServer

CLUSTER: Final = "hotpool-bench"
LEASES: Final = 200
INTERVAL: Final = 15
FLIPS: Final = 200
POOLS: Final = 25
PAUSE_SECONDS: Final = 0.06
IDLE_SECONDS: Final = 18.0
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

    async def run(self) -> dict[str, float]:
        """All figures: milliseconds, and writes for each flip or heartbeat."""
        await asyncio.gather(*(self._create(node) for node in range(LEASES)))
        silent = await self._cost()
        beating = asyncio.create_task(self._beat())
        idle = await self._cost()
        beats = LEASES / INTERVAL * IDLE_SECONDS
        figures = {
            "idle_heartbeat_cpu_ms": round((idle["cpu"] - silent["cpu"]) * 1000 / beats, 4),
            "idle_heartbeat_writes": (idle["writes"] - silent["writes"]) / beats,
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
        """Renew every Lease once in an interval, spread evenly, until cancelled."""
        number = 0
        started = time.monotonic()
        while True:
            name = f"{LEASE_PREFIX}node-{number % LEASES}"
            body = {"spec": {"renewTime": timestamp()}}
            await self._leases.patch_namespaced_lease(name, self._fleet.namespace, body, _content_type=_MERGE)
            number += 1
            await asyncio.sleep(max(0.0, started + number * INTERVAL / LEASES - time.monotonic()))

    async def _cost(self) -> dict[str, float]:
        """CPU seconds of the operator, and writes seen by the API server, in a while in which nothing changes."""
        assert self._fleet.operator
        process = psutil.Process(self._fleet.operator.pid)
        await asyncio.sleep(2)
        times, writes = process.cpu_times(), self._writes()
        await asyncio.sleep(IDLE_SECONDS)
        after = process.cpu_times()
        return {"cpu": after.user + after.system - times.user - times.system, "writes": self._writes() - writes}

    def _writes(self) -> float:
        """Writes that the API server counted, Leases and refusals left out."""
        verbs = ('verb="POST"', 'verb="PUT"', 'verb="PATCH"', 'verb="APPLY"', 'verb="DELETE"')
        lines = self._fleet.kubectl("get", "--raw", "/metrics").splitlines()
        ours = (line for line in lines if line.startswith("apiserver_request_total") and 'group="hotpool.dev"' in line)
        return sum(float(line.rsplit(" ", 1)[1]) for line in ours if any(verb in line for verb in verbs))

    async def _flips(self) -> dict[str, float]:
        to_slice: list[float] = []
        to_redis: list[float] = []
        before = self._writes()
        for flip in range(FLIPS):
            node, ready = flip % POOLS, (flip // POOLS) % 2 == 1
            started = time.monotonic()
            await self._report(node, ready=ready)
            seen = await asyncio.gather(self._in_slice(node, ready=ready), self._in_redis(node, ready=ready))
            if not ready:
                to_slice.append((seen[0] - started) * 1000)
                to_redis.append((seen[1] - started) * 1000)
            await asyncio.sleep(PAUSE_SECONDS)
        await asyncio.sleep(2)
        writes = (self._writes() - before) / FLIPS
        return {
            **_percentiles("stop_to_slice_ms", to_slice),
            **_percentiles("stop_to_redis_ms", to_redis),
            "flip_writes": writes,
        }

    async def _in_slice(self, node: int, *, ready: bool) -> float:
        where = (*GROUP, self._fleet.namespace, "nodepoolslices", f"pool-{node}-0")

        async def there() -> bool:
            found: Any = await self._objects.get_namespaced_custom_object(*where)
            return any(member["node"] == f"node-{node}" for member in found["members"])

        return await _when(there, ready)

    async def _in_redis(self, node: int, *, ready: bool) -> float:
        async def there() -> bool:
            return f"node-{node}" in (await self._lookup.members(f"pool-{node}")).ready

        return await _when(there, ready)


async def _when(probe: Callable[[], Any], wanted: bool) -> float:  # noqa: FBT001 - the value waited for.
    deadline = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < deadline:
        if await probe() == wanted:
            return time.monotonic()
        await asyncio.sleep(0.001)
    raise TimeoutError(f"not {wanted} within {DEADLINE_SECONDS:g} s")


def _percentiles(name: str, values: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(values, n=100)
    return {f"{name}_p50": round(cuts[49], 2), f"{name}_p99": round(cuts[98], 2)}


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


def main() -> None:
    """Run once and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    options = parser.parse_args()
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
                figures = asyncio.run(_measure(fleet, kubeconfig))
            finally:
                fleet.close()
    finally:
        subprocess.run([str(kind), "delete", "cluster", "--name", CLUSTER], check=True)
    for name, value in figures.items():
        sys.stdout.write(f"{name:28} {value:10.3f}\n")
    if options.json:
        options.json.write_text(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main()
