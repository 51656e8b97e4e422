"""Time to rebuild a flushed Redis, blocking commands meanwhile, and memory of a membership.

One Valkey on loopback, with the operator's cache, its worker of Redis and the writer in this process: 10,000 nodes of
four types, all of them in 132 pools (1.3 million memberships), and separately 10,000 pools of ten. Reading Kubernetes
is not measured.

- `rebuild_10k_s`: from FLUSHALL ASYNC until the projection is complete; `rebuild_10k_notice_s`: until a leader claims
  it again, which happens in its drift check every 5 s if nothing changes.
- `rebuild_longest_block_ms`: the longest command by the clock of Redis (SLOWLOG), of the rebuild and the drift checks
  after it. It is wall-clock time, so it includes time without a core. To keep this benchmark out of it, the thread that
  executes commands has a core to itself if there are two; writer, readers and the threads that free flushed memory use
  the others. `rebuild_server_waited_ms` is the time for which it still waited for that core, of a whole run.
  `rebuild_blocks_over_*`: number of longer commands, in the run with the fewest. The same for 10,000 pools. A run in
  which the server waited for seconds measures the machine; use one without.
- `rebuild_ping_ms_*`: times of another process that sends PING as fast as it can, in a run of its own; `idle` is the
  same without a rebuild, so the cost of machine and pinger alone.
- `redis_bytes_per_membership`: growth of used_memory by the pools, over their memberships; `redis_bytes_per_node`.
"""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import structlog
from benchmarks.synthetic_fleet import NODES, POOLS, name
from redis import Redis
from tests.support.builders import pool
from tests.support.leadership import FixedLeadership
from tests.support.redis_fleet import RedisFleet

from hotpool.controllers.redis_target import RedisTarget
from hotpool.projection.connection.async_connection import connect
from hotpool.projection.documents import NodeDocument, PoolDocument
from hotpool.projection.keys import FleetKeys
from hotpool.projection.writer import RedisWriter
from localfleet.kind import REPOSITORY
from localfleet.metrics_reader import spread
from localfleet.redis_server import RedisServer

RUNS: Final = 3
MANY_POOLS: Final = 10_000
FEW_MEMBERS: Final = 10
IDLE_SECONDS: Final = 10.0
LOOK_SECONDS: Final = 0.02
SLOW_US: Final = 500
SLOW_KEPT: Final = 100_000
LIMIT_SECONDS: Final = 300.0
_KEYS: Final = FleetKeys("hotpool", "fleet")
_PINGER: Final = """
import json, socket, sys, threading, time
stopped = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), stopped.set()), daemon=True).start()
took = []
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as link:
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while not stopped.is_set():
        begun = time.perf_counter()
        link.sendall(b"PING\\r\\n")
        link.recv(64)
        took.append((time.perf_counter() - begun) * 1000)
took.sort()
print(json.dumps({"longest": took[-1], "p99": took[len(took) * 99 // 100], "p50": took[len(took) // 2]}))
"""


def _add_pools_of_all_nodes(fleet: RedisFleet) -> None:
    for number in range(POOLS):
        generated = {"by": "speech", "kind": "LanguagePair", "key": f"{number}"}
        fleet.put(pool(f"speech-{number:05}", requires={"matchAll": True}, generated=generated))


def _add_small_pools(fleet: RedisFleet) -> None:
    empty: frozenset[str] = frozenset()
    for number in range(MANY_POOLS):
        first = number * FEW_MEMBERS % NODES
        ready = frozenset(name((first + place) % NODES) for place in range(FEW_MEMBERS))
        fleet.set_pool(PoolDocument(f"speech-{number:05}", f"u{number}", "speech", f"{number}", ready, empty, empty))


def _nodes() -> list[NodeDocument]:
    types = (("asr", "whisper"), ("nmt", "m2m100"), ("tts", "piper"), ("semantic", "repair"))
    can = tuple((kind, True, None, (service,)) for kind, service in types)
    return [NodeDocument(name(number), can) for number in range(NODES)]


class _Pinger:
    """A client that sends PING, in a process of its own."""

    def __init__(self, server: RedisServer) -> None:
        command = [sys.executable, "-c", _PINGER, str(server.port)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY
        )

    def stop(self) -> dict[str, float]:
        """End the client; return milliseconds from PING to reply: longest, p99, p50."""
        return dict(json.loads(self._process.communicate()[0]))


class _Run:
    """A leading worker, and measurements of the server."""

    def __init__(self, server: RedisServer, admin: Any) -> None:
        self._server = server
        self._admin = admin
        self.slow: list[list[tuple[float, str]]] = []
        """For each rebuild, milliseconds and function or command of every call that took longer than SLOW_US."""
        self.waited: list[float] = []
        """For each rebuild, milliseconds for which the server was runnable and had no core."""

    async def fill(
        self, nodes: Iterable[NodeDocument], add_pools: Callable[[RedisFleet], None], memberships: int
    ) -> dict[str, float]:
        """Write all nodes, then all pools; return the bytes of both."""
        self._client = connect(self._server.url)
        leadership = FixedLeadership()
        fleet = RedisFleet(RedisWriter(self._client, leadership, namespace="fleet"), leadership)
        self._work = asyncio.create_task(fleet.run())
        await self._until(lambda: fleet.healthy)
        before, documents = self._memory(), list(nodes)
        for node in documents:
            fleet.set_node(node)
        await self._until(lambda: self._admin.scard(_KEYS.nodes) == len(documents))
        filled = self._memory()
        add_pools(fleet)
        await self._until(lambda: self._ready_members() == memberships)
        return {"nodes": filled - before, "pools": self._memory() - filled}

    def _ready_members(self) -> int:
        """Return the number of Ready members of all pools."""
        with self._admin.pipeline(transaction=False) as pipeline:
            for pool_name in self._admin.smembers(_KEYS.pools):
                pipeline.zcard(_KEYS.pool(pool_name.decode())[1])
            return sum(pipeline.execute())

    def _memory(self) -> int:
        return int(self._admin.info("memory")["used_memory"])

    async def _until(self, holds: Any) -> float:
        """Wait for a condition; return the monotonic time. Raises TimeoutError."""
        ends = time.monotonic() + LIMIT_SECONDS
        while not holds():
            if time.monotonic() > ends:
                raise TimeoutError(f"the projection was not complete within {LIMIT_SECONDS:g} s")
            await asyncio.sleep(LOOK_SECONDS)
        return time.monotonic()

    async def rebuild(self) -> tuple[float, float]:
        """Flush Redis; return the seconds until claimed and until complete. Two drift checks follow."""
        self._admin.config_set("slowlog-log-slower-than", SLOW_US)
        self._admin.config_set("slowlog-max-len", SLOW_KEPT)
        self._admin.slowlog_reset()
        waited, begun = self._no_core(), time.monotonic()
        self._admin.flushall(asynchronous=True)
        noticed = await self._until(lambda: self._admin.hexists(_KEYS.meta, "term"))
        whole = await self._until(lambda: self._admin.hget(_KEYS.meta, "complete") == b"1")
        await asyncio.sleep(2 * (RedisTarget.drift_seconds or 0))
        self.waited.append(self._no_core() - waited)
        self._read_slow()
        return noticed - begun, whole - begun

    def _no_core(self) -> float:
        pid = self._admin.info("server")["process_id"]
        return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[1]) / 1e6

    def _read_slow(self) -> None:
        found: list[tuple[float, str]] = []
        for entry in self._admin.slowlog_get(SLOW_KEPT):
            words = entry["command"].split(b" ")
            what = words[1 if words[0].startswith(b"FCALL") else 0].decode()
            if what not in {"FLUSHALL", "SLOWLOG", "CONFIG", "INFO"}:
                found.append((entry["duration"] / 1000, what))
        self.slow.append(found)

    async def close(self) -> None:
        """End the worker."""
        self._work.cancel()
        await asyncio.gather(self._work, return_exceptions=True)
        await self._client.aclose()


def _blocks(run: _Run, prefix: str) -> dict[str, float]:
    longest = {what: took for took, what in sorted(slow for found in run.slow for slow in found)}
    listed = ", ".join(f"{what} {took:.2f}" for what, took in longest.items())
    sys.stderr.write(f"{prefix}: longest ms by function: {listed}\n")
    return {
        **spread(f"{prefix}_longest_block_ms", [max(took for took, _ in found) for found in run.slow]),
        **{f"{prefix}_blocks_over_{ms}_ms": _over(run, ms) for ms in (2, 5)},
        **spread(f"{prefix}_server_waited_ms", run.waited),
    }


def _over(run: _Run, milliseconds: float) -> float:
    """Return the number of longer commands, in the rebuild with the fewest."""
    return min(sum(took > milliseconds for took, _ in found) for found in run.slow)


async def _large(server: RedisServer, admin: Any) -> dict[str, float]:
    """Measure 132 pools of 10,000."""
    run = _Run(server, admin)
    grown = await run.fill(_nodes(), _add_pools_of_all_nodes, POOLS * NODES)
    pinger = _Pinger(server)
    await asyncio.sleep(IDLE_SECONDS)
    pings = {"idle": pinger.stop()}
    pinger = _Pinger(server)
    await run.rebuild()
    pings["rebuild"] = pinger.stop()
    run.slow.clear()
    run.waited.clear()
    times = [await run.rebuild() for _ in range(RUNS)]
    await run.close()
    return {
        **spread("rebuild_10k_s", [whole for _, whole in times]),
        **spread("rebuild_10k_notice_s", [noticed for noticed, _ in times]),
        **_blocks(run, "rebuild"),
        **{
            f"rebuild_ping_ms_{when}_{what}": round(ms, 2)
            for when, times in pings.items()
            for what, ms in times.items()
        },
        "redis_bytes_per_membership": round(grown["pools"] / (POOLS * NODES), 1),
        "redis_bytes_per_node": round(grown["nodes"] / NODES, 1),
    }


async def _many(server: RedisServer, admin: Any) -> dict[str, float]:
    """Measure 10,000 pools of ten."""
    run = _Run(server, admin)
    await run.fill([], _add_small_pools, MANY_POOLS * FEW_MEMBERS)
    _, whole = await run.rebuild()
    await run.close()
    return {"rebuild_10k_pools_s": round(whole, 3), **_blocks(run, "rebuild_10k_pools")}


@contextmanager
def _dedicated_core(admin: Any) -> Iterator[None]:
    """Give the server's main thread the last core to itself, if there is more than one; others may still use it."""
    pid = int(admin.info("server")["process_id"])
    own_cores = os.sched_getaffinity(0)
    last, *others = sorted(own_cores, reverse=True)
    for thread in Path(f"/proc/{pid}/task").iterdir():
        alone = int(thread.name) == pid or not others
        os.sched_setaffinity(int(thread.name), {last} if alone else others)
    os.sched_setaffinity(0, others or own_cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, own_cores)


def measure() -> dict[str, float]:
    """Return all figures."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    figures: dict[str, float] = {}
    for part in (_large, _many):
        with RedisServer() as server, Redis.from_url(server.url) as admin, _dedicated_core(admin):
            figures |= asyncio.run(part(server, admin))
    return figures
