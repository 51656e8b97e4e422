"""Leaders that record their writes, readers in processes of their own, and the oracle.

The oracle: each write is recorded with its version before it is sent. Each result of a reader must equal the record of
its version. The oracle does not depend on the storage format in Redis.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tests.support.leadership import FixedLeadership
from tests.support.redis_fleet import RedisFleet
from tests.support.torture import limits
from tests.support.torture.reader import ENOUGH, leader_of

from hotpool.errors import NotLeaderError, WriteError
from hotpool.projection.documents import NodeDocument, PoolDocument
from hotpool.projection.keys import FleetKeys
from hotpool.projection.writer import RedisWriter
from localfleet.kind import REPOSITORY

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

    import pytest

    from hotpool.projection.connection.async_connection import Client

KEYS: Final = FleetKeys("hotpool", "speech")
POOL_SIZES: Final = {"de-en": 6, "en-de": 12, "zh-en": 300}
"""Maximum number of members of each pool. At least one of them can always be picked."""
NODES: Final = ("edge-0", "edge-1", "edge-2")
MEMBERS_PER_CALL: Final = 60
_PICKED: Final = {"Ready": 0, "Suspect": 1}
MemberSets = tuple[frozenset[str], ...]


class History:
    """Written documents by pool, leader and version, and the periods in which writes were lost."""

    def __init__(self) -> None:
        self.documents: dict[str, PoolDocument] = {**limits.DOCUMENTS}
        self.pools: dict[tuple[str, int, int], MemberSets] = {}
        self.nodes: dict[str, set[str]] = {name: set() for name in NODES}
        self.losses: list[tuple[float, float]] = []

    def record(self, leader: int, command: tuple[Any, ...]) -> None:
        """Record the pool that a Redis command writes, if it writes one."""
        if command[0] != "FCALL" or command[1].rpartition("_")[2] not in {"replace", "swap", "change", "exchange"}:
            return
        _term, version, name, _uid, digest, *_ = command[3 + int(command[2]) :]
        self.pools[name, leader, version] = self.documents[digest].members

    @contextmanager
    def losing(self) -> Iterator[None]:
        """Record a period in which a version may decrease."""
        start = time.monotonic()
        yield
        self.losses.append((start, time.monotonic()))


@dataclass
class _Election(FixedLeadership):
    """Leadership whose term only an elected leader can raise. Writes go on after it ended, for Redis to refuse."""

    elected: bool = True

    async def raise_term(self, term: int) -> None:
        if not self.elected:
            raise NotLeaderError("another leader holds the Lease")
        await super().raise_term(term)


class Leader:
    """One leader and its worker. After it is deposed it keeps writing, and records refused and accepted writes."""

    def __init__(self, client: Client, history: History, term: int, patch: pytest.MonkeyPatch) -> None:
        self.client = client
        self.number = term
        self.leadership = _Election(term)
        self.deposed = False
        self.stopped = False
        self.refused = 0
        self.accepted: list[str] = []
        self._history = history
        send = client.execute_command

        async def record_and_send(*command: Any, **more: Any) -> Any:
            if not self.deposed:
                history.record(self.number, command)
            return await send(*command, **more)

        patch.setattr(client, "execute_command", record_and_send)
        self.writer = RedisWriter(client, self.leadership, namespace="speech")
        self.fleet = RedisFleet(self.writer, self.leadership)
        self.documents: dict[str, PoolDocument] = {}
        """Pool → its last document."""
        self._work: asyncio.Task[None] | None = None

    def random_document(self, name: str, rng: random.Random, former: PoolDocument | None) -> PoolDocument:
        """Return a pool with a few changed members, or with all members changed."""
        names = [f"g{self.number}-{name}-{place:03}" for place in range(POOL_SIZES[name])]
        if former and rng.random() < 0.8:
            states = {node: place for place, members in enumerate(former.members) for node in members}
            changed = rng.sample(names, min(3, len(names)))
        else:
            states, changed = {}, names
        for node in changed:
            states.pop(node, None)
            if (state := rng.choice((0, 0, 0, 0, 1, 2, None))) is not None:
                states[node] = state
        if not any(state < 2 for state in states.values()):
            states[names[0]] = rng.choice((0, 1))
        sets = [frozenset(node for node, state in states.items() if state == place) for place in range(3)]
        document = PoolDocument(name, f"uid-{name}", "pairs", name, sets[0], sets[1], sets[2], former)
        self._history.documents[document.digest] = document
        return document

    async def start(self, rng: random.Random) -> None:
        """Start to lead. Return when Redis holds the first document of every pool and node."""
        for name in POOL_SIZES:
            self._change_pool(name, rng)
        for name in NODES:
            self.change_node(name, rng)
        limits.offer_services(self.fleet)
        self._work = asyncio.create_task(self.fleet.run())
        await self.wait_healthy()

    def change(self, rng: random.Random) -> None:
        """Change a pool, and sometimes a node."""
        self._change_pool(rng.choice(list(POOL_SIZES)), rng)
        if rng.random() < 0.2:
            self.change_node(rng.choice(NODES), rng)

    def _change_pool(self, name: str, rng: random.Random) -> None:
        document = self.documents[name] = self.random_document(name, rng, self.documents.get(name))
        self.fleet.set_pool(document)

    def change_node(self, name: str, rng: random.Random) -> None:
        """Change the capability of a node."""
        kinds = rng.sample(("asr", "nmt", "tts", "llm"), 2)
        document = NodeDocument(
            name, tuple((kind, True, None, (f"g{self.number}", str(rng.random()))) for kind in kinds)
        )
        self._history.nodes[name].add(capability_json(document))
        self.fleet.set_node(document)

    async def wait_healthy(self) -> None:
        """Wait until the worker is healthy. Raise the error of a worker that ended."""
        deadline = time.monotonic() + 30
        while not self.fleet.healthy:
            if self._work and self._work.done():
                self._work.result()
            assert time.monotonic() < deadline, f"Redis never became healthy: {self.fleet.error}"
            await asyncio.sleep(0.01)

    async def stop_work(self) -> None:
        """Stop the worker."""
        if self._work:
            self._work.cancel()
            await asyncio.gather(self._work, return_exceptions=True)

    async def keep_writing(self, rng: random.Random) -> None:
        """Repeat all writes, as a former leader that was suspended. Redis must refuse each."""
        self.deposed = True
        await self.stop_work()
        while not self.stopped:
            for name in POOL_SIZES:
                document = self.random_document(name, rng, None)
                await self._try("replace_pool", self.writer.replace_pool(document))
                await self._try("drop_pool", self.writer.drop_pool(name))
            await self._try("drop_node", self.writer.drop_node(NODES[0]))
            await self._try("drop_index", self.writer.drop_index([f"pairs/{name}" for name in POOL_SIZES]))
            await self._try("stamp", self.writer.stamp(complete=True))

    async def _try(self, verb: str, write: Any) -> None:
        try:
            await write
        except WriteError:
            self.refused += 1
        else:
            self.accepted.append(verb)
        await asyncio.sleep(0.004)


def capability_json(document: NodeDocument) -> str:
    """Return the capability of a node in the form of a reader's result."""
    types = {kind: [ready, reason, list(services)] for kind, ready, reason, services in document.capabilities}
    return json.dumps(types, sort_keys=True)


class Readers:
    """Dispatchers in processes of their own."""

    def __init__(self, url: str, *, cluster: bool, count: int = 2) -> None:
        arguments = [url, "yes" if cluster else "no", ",".join(POOL_SIZES), ",".join(NODES)]
        command = [sys.executable, "-m", "tests.support.torture.reader", *arguments]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(REPOSITORY), *filter(None, sys.path)])}
        self._processes = [
            subprocess.Popen(
                command, cwd=REPOSITORY, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            for _ in range(count)
        ]

    def wait_until_enough(self) -> None:
        """Return when each has seen enough versions of each pool. Raise AssertionError if one ends early."""
        for process in self._processes:
            assert process.stdout
            line = process.stdout.readline().strip()
            assert line == ENOUGH, f"a reader: {line}"

    def stop(self) -> list[dict[str, Any]]:
        """Stop the processes and return the results of each."""
        return [json.loads(process.communicate(timeout=60)[0]) for process in self._processes]

    def kill(self) -> None:
        """Kill the processes that still run."""
        for process in self._processes:
            if process.poll() is None:
                process.kill()
                process.wait()


def violations(history: History, seen: dict[str, Any]) -> list[str]:
    """Return the results of a reader that contradict the history."""
    wrong = list(seen["lies"])
    for pool, version, node, state in seen["picks"]:
        sets = history.pools.get((pool, leader_of(node), version), (frozenset(),) * 3)
        if node not in sets[_PICKED[state]] or (state == "Suspect" and sets[0]):
            wrong.append(f"{node} ({state}) must not be picked in version {version} of {pool}")
    for pool, leader, version, *sets in seen["wholes"]:
        if tuple(map(frozenset, sets)) != history.pools.get((pool, leader, version)):
            wrong.append(f"wrong members in version {version} of {pool} by leader {leader}")
    for pool, reason, complete, count in seen["nones"]:
        if complete or reason not in {"FleetUnknown", "PoolUnknown"}:
            wrong.append(f"{pool} was never empty, but: {reason}, complete: {complete}, {count} times")
    for pool, last, now, start, ended in seen["backs"]:
        if not any(begin <= ended and end >= start for begin, end in history.losses):
            wrong.append(f"{pool} went back from {last} to {now} although nothing was lost")
    for node, found in seen["capabilities"].items():
        wrong += [f"{node} never had {types}" for types in found if types not in history.nodes[node]]
    return wrong
