"""A rolling restart with streams open (C5): each node is drained, its service restarted, and no stream is cut.

Real services, dispatchers, agents, operator, API server and Redis. Streams go over loopback.
"""

import asyncio
import os
import random
import sys
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
from pytest_kind.cluster import KindCluster
from tests.support.fleet_objects import BOTH, pool, published

from hotpool.lookup import Lookup, Picked, Reservation
from localfleet.catalogue import service
from localfleet.fleet import Fleet
from localfleet.kind import REPOSITORY
from localfleet.ports import free_port
from localfleet.process import wait_for
from localfleet.redis_server import RedisServer

PROGRAM: Final = str(Path(sys.executable).with_name("hotpool"))
SERVER: Final = REPOSITORY / "tests" / "support" / "samples" / "stream_server.py"
LOOPBACK: Final = "127.0.0.1"
SECONDS = 30.0
RESERVED = 3.0
"""A ledger that is younger than the longest reservation proves nothing, so this is a part of the first drain."""
DISPATCHERS = 6


@pytest.fixture
def fleet(kind_cluster: KindCluster, server: RedisServer) -> Iterator[Fleet]:
    """Two nodes in a pool, each with one service of four streams at a time, and a Redis of its own."""
    kubeconfig, kubectl = Path(kind_cluster.kubeconfig_path), Path(kind_cluster.kubectl_path)
    namespace = f"fleet-{uuid.uuid4().hex[:6]}"
    fleet = Fleet(kubeconfig, kubectl, namespace, server.url, advertise=LOOPBACK)
    fleet.install()
    fleet.apply(pool("llm", types=[{"type": "llm"}]))
    fleet.start_operator("operator", "--allow-loopback-endpoints")
    for node in BOTH:
        port = free_port()
        run = {"command": [sys.executable, str(SERVER), str(port)]}
        entry = service("qwen", "llm", port=port, maxConcurrent=4, run=run)
        fleet.start_agent(node, [entry], interval=1, debounce=0.2)
    fleet.wait_leading()
    wait_for("both nodes are in", lambda: published(fleet, "llm", BOTH), 60)
    yield fleet
    fleet.close()


@dataclass
class Streams:
    """Dispatchers that hold streams of a fleet, and what they saw."""

    lookup: Lookup
    drained: str = ""
    """Node that Redis shows as draining."""
    streams: Counter[tuple[str, int]] = field(default_factory=Counter)
    """Node and process → streams that ended as their client wished."""
    cut: list[str] = field(default_factory=list)
    """Nodes of streams that ended before."""
    misplaced: list[str] = field(default_factory=list)
    """Nodes of picks that began and ended while the node was drained."""
    full: int = 0

    async def reserve(self, *exclude: str) -> Reservation | None:
        """Reserve a stream's slot; None if all are in use."""
        drained = self.drained
        found = await self.lookup.pick("llm", strategy="least-loaded", reserve=RESERVED, types=["llm"], exclude=exclude)
        if not isinstance(found, Picked):
            self.full += 1
            return None
        if found.node == drained == self.drained:
            self.misplaced.append(found.node)
        return found.reservation

    @asynccontextmanager
    async def stream(self, held: Reservation) -> AsyncIterator[int]:
        """Hold a stream in the block, and renew its reservation. Yield the process that serves it."""
        place = held.endpoints["llm"][0]
        assert place.address == LOOPBACK, "a test connects to no other address"
        reader, writer = await asyncio.open_connection(place.address, place.port)
        writer.write(b"GET /stream HTTP/1.1\r\n\r\n")
        process = int(await reader.readline())
        keeping = asyncio.create_task(self._keep(held, reader))
        try:
            yield process
        finally:
            if keeping.done():
                self.cut.append(held.node)
            else:
                self.streams[held.node, process] += 1
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
            writer.close()
            await self.lookup.release(held, failed=False)

    async def _keep(self, held: Reservation, reader: asyncio.StreamReader) -> None:
        """Read until the stream is cut."""
        loop = asyncio.get_running_loop()
        renewal = loop.time()
        while await reader.read(100):
            if loop.time() > renewal + RESERVED / 4:
                renewal = loop.time()
                assert await self.lookup.renew(held, RESERVED)

    async def dispatch(self, seed: int) -> None:
        """Hold one short stream after another until cancelled."""
        chance = random.Random(seed)  # noqa: S311 - no secret.
        while True:
            if held := await self.reserve():
                async with self.stream(held):
                    await asyncio.sleep(chance.uniform(0.05, 0.4))
            else:
                await asyncio.sleep(0.05)


async def command(fleet: Fleet, *words: str) -> asyncio.subprocess.Process:
    """Start `hotpool` as the administrator."""
    words = (*words, "-n", fleet.namespace, "--kubeconfig", str(fleet.admin))
    return await asyncio.create_subprocess_exec(PROGRAM, *words, env=os.environ, stderr=asyncio.subprocess.DEVNULL)


async def shows(streams: Streams, node: str, *, draining: bool) -> None:
    """Wait until Redis shows the node as draining, or as Ready."""
    async with asyncio.timeout(SECONDS):
        while True:
            members = await streams.lookup.members("llm")
            if node in (members.draining if draining else members.ready):
                return
            await asyncio.sleep(0.01)


def in_use(fleet: Fleet, node: str) -> Any:
    """Return the requests in progress that the operator counts of a draining node."""
    return (fleet.get("nodecapabilities", node) or {}).get("status", {}).get("drain", {}).get("inFlight")


async def restart(fleet: Fleet, streams: Streams, node: str) -> None:
    """Drain a node on which a long stream is open, restart its service, and let it serve again."""
    [other] = BOTH.keys() - {node}
    held = None
    while held is None:
        held = await streams.reserve(other)
    async with streams.stream(held) as before:
        waiting = await command(fleet, "drain", node, "--wait", "--timeout", "60")
        await shows(streams, node, draining=True)
        streams.drained = node
        await asyncio.to_thread(wait_for, "the long stream alone is counted", lambda: in_use(fleet, node) == 1, SECONDS)
        assert waiting.returncode is None
    assert await asyncio.wait_for(waiting.wait(), SECONDS) == 0
    await asyncio.to_thread(fleet.agent, node, "restart", "qwen")
    streams.drained = ""
    undraining = await command(fleet, "undrain", node)
    assert await asyncio.wait_for(undraining.wait(), SECONDS) == 0
    await shows(streams, node, draining=False)
    async with asyncio.timeout(SECONDS):
        while not any(place == node and process != before for place, process in streams.streams):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@pytest.mark.timeout(120)
def test_a_rolling_restart_cuts_no_stream(fleet: Fleet, server: RedisServer) -> None:
    async def scenario() -> Streams:
        async with Lookup.from_url(server.url, namespace=fleet.namespace) as lookup:
            streams = Streams(lookup)
            working = [asyncio.create_task(streams.dispatch(seed)) for seed in range(DISPATCHERS)]
            for node in BOTH:
                await restart(fleet, streams, node)
            assert not any(task.done() for task in working)
            for task in working:
                task.cancel()
            await asyncio.gather(*working, return_exceptions=True)
            return streams

    streams = asyncio.run(scenario())
    assert (streams.cut, streams.misplaced) == ([], [])
    assert Counter(node for node, _ in streams.streams) == dict.fromkeys(BOTH, 2), "each node served by two processes"
    assert streams.full, "while one node is drained, the other one is full at times"
