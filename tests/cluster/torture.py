"""What the torture tests share: leaders that write and remember what they wrote, readers in processes, the oracle.

The oracle: each write is noted, with its version, before it is sent. What any reader was told must then be exactly what
was noted for the version that it was told with. Nothing is known of how Redis holds it.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from tests.cluster.torture_reader import ENOUGH, leader_of

from hotpool.projection.images import NodeImage, PoolImage
from hotpool.projection.keys import FleetKeys
from hotpool.projection.mirror import Mirror
from hotpool.projection.writer import Writer
from hotpool.sinks.errors import NotLeader, SinkError
from localfleet.kind import REPOSITORY

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

    import pytest

    from hotpool.projection.client import Client

KEYS: Final = FleetKeys("hotpool", "speech")
SIZES: Final = {"de-en": 6, "en-de": 12, "zh-en": 300}
"""Most members of each pool; it has always at least one that can be picked."""
NODES: Final = ("edge-0", "edge-1", "edge-2")
MEMBERS_PER_CALL: Final = 60
_PICKED: Final = {"Ready": 0, "Suspect": 1}
Sets = tuple[frozenset[str], ...]


class History:
    """What was written, by pool, leader and version; and when something was lost that had been written."""

    def __init__(self) -> None:
        self.images: dict[str, PoolImage] = {}
        self.pools: dict[tuple[str, int, int], Sets] = {}
        self.nodes: dict[str, set[str]] = {name: set() for name in NODES}
        self.losses: list[tuple[float, float]] = []

    def note(self, leader: int, words: tuple[Any, ...]) -> None:
        """Note the pool that a call to Redis writes, if it writes one."""
        if words[0] != "FCALL" or words[1].rpartition("_")[2] not in {"replace", "swap", "change", "exchange"}:
            return
        _term, version, name, _uid, digest, *_ = words[3 + int(words[2]) :]
        self.pools[name, leader, version] = self.images[digest].members

    @contextmanager
    def losing(self) -> Iterator[None]:
        """Meanwhile a version may go back."""
        begun = time.monotonic()
        yield
        self.losses.append((begun, time.monotonic()))


class Leader:
    """One leader with a mirror. Deposed, it goes on writing, and counts who let it."""

    def __init__(self, client: Client, history: History, term: int, patch: pytest.MonkeyPatch) -> None:
        self.client = client
        self.number = term
        self.term = term
        self.elected = True
        self.deposed = False
        self.stopped = False
        self.refused = 0
        self.accepted: list[str] = []
        self._history = history
        send = client.execute_command

        async def noting(*words: Any, **more: Any) -> Any:
            if not self.deposed:
                history.note(self.number, words)
            return await send(*words, **more)

        patch.setattr(client, "execute_command", noting)
        self.writer = Writer(client, namespace="speech", leader=lambda: True)
        self.mirror = Mirror(self.writer, term=lambda: self.term, raise_term=self._raise_term, cluster=self._cluster)
        self._rounds: asyncio.Task[None] | None = None

    async def _raise_term(self, term: int) -> None:
        if not self.elected:
            raise NotLeader("another leader holds the Lease")
        self.term = term

    async def _cluster(self) -> str:
        return "cluster-1"

    def image(self, name: str, course: random.Random, former: PoolImage | None) -> PoolImage:
        """A pool of which a few members changed, or all of them."""
        known = [f"g{self.number}-{name}-{place:03}" for place in range(SIZES[name])]
        if former and course.random() < 0.8:
            states = {node: place for place, members in enumerate(former.members) for node in members}
            changed = course.sample(known, min(3, len(known)))
        else:
            states, changed = {}, known
        for node in changed:
            states.pop(node, None)
            if (state := course.choice((0, 0, 0, 0, 1, 2, None))) is not None:
                states[node] = state
        if not any(state < 2 for state in states.values()):
            states[known[0]] = course.choice((0, 1))
        sets = [frozenset(node for node, state in states.items() if state == place) for place in range(3)]
        made = PoolImage(name, f"uid-{name}", "pairs", name, sets[0], sets[1], sets[2], former)
        self._history.images[made.digest] = made
        return made

    async def begin(self, course: random.Random) -> None:
        """Lead, and return when Redis holds the first image of everything."""
        for name in SIZES:
            await self.mirror.pool(self.image(name, course, None))
        for name in NODES:
            await self.change_node(name, course)
        self._rounds = asyncio.create_task(self.mirror.run())
        await self.settled()

    async def change(self, course: random.Random) -> None:
        """Change a pool, and sometimes a node."""
        name = course.choice(list(SIZES))
        await self.mirror.pool(self.image(name, course, self.mirror.wanted(name)))
        if course.random() < 0.2:
            await self.change_node(course.choice(NODES), course)

    async def change_node(self, name: str, course: random.Random) -> None:
        """Give a node other capabilities."""
        kinds = course.sample(("asr", "nmt", "tts", "llm"), 2)
        image = NodeImage(name, tuple((kind, True, None, (f"g{self.number}", str(course.random()))) for kind in kinds))
        self._history.nodes[name].add(told_of(image))
        await self.mirror.node(image)

    async def settled(self) -> None:
        """Wait until Redis holds all; a leader that ended fails here."""
        ends = time.monotonic() + 30
        while not self.mirror.up:
            if self._rounds and self._rounds.done():
                self._rounds.result()
            assert time.monotonic() < ends, f"Redis never caught up: {self.mirror.why}"
            await asyncio.sleep(0.01)

    async def end(self) -> None:
        """Stop the rounds."""
        if self._rounds:
            self._rounds.cancel()
            await asyncio.gather(self._rounds, return_exceptions=True)

    async def go_on(self, course: random.Random) -> None:
        """Write everything again and again, as one that was asleep: each time Redis must refuse."""
        self.deposed = True
        await self.end()
        while not self.stopped:
            for name in SIZES:
                image = self.image(name, course, None)
                await self._try("replace_pool", self.writer.replace_pool(image))
                await self._try("drop_pool", self.writer.drop_pool(name))
            await self._try("drop_node", self.writer.drop_node(NODES[0]))
            await self._try("drop_index", self.writer.drop_index([f"pairs/{name}" for name in SIZES]))
            await self._try("stamp", self.writer.stamp(complete=True))

    async def _try(self, what: str, write: Any) -> None:
        try:
            await write
        except SinkError:
            self.refused += 1
        else:
            self.accepted.append(what)
        await asyncio.sleep(0.004)


def told_of(image: NodeImage) -> str:
    """A node as a reader tells it."""
    types = {kind: [ready, reason, list(services)] for kind, ready, reason, services in image.capabilities}
    return json.dumps(types, sort_keys=True)


class Readers:
    """Dispatchers in processes of their own."""

    def __init__(self, url: str, *, cluster: bool, count: int = 2) -> None:
        words = [url, "yes" if cluster else "no", ",".join(SIZES), ",".join(NODES)]
        command = [sys.executable, "-m", "tests.cluster.torture_reader", *words]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(REPOSITORY), *filter(None, sys.path)])}
        self._processes = [
            subprocess.Popen(
                command, cwd=REPOSITORY, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            for _ in range(count)
        ]

    def watch(self) -> None:
        """Return when each has seen enough versions of each pool. Raise AssertionError where one ends before."""
        for process in self._processes:
            assert process.stdout
            line = process.stdout.readline().strip()
            assert line == ENOUGH, f"a reader: {line}"

    def stop(self) -> list[dict[str, Any]]:
        """End them; what each saw."""
        return [json.loads(process.communicate(timeout=60)[0]) for process in self._processes]

    def kill(self) -> None:
        """End those that still run."""
        for process in self._processes:
            if process.poll() is None:
                process.kill()
                process.wait()


def violations(history: History, seen: dict[str, Any]) -> list[str]:
    """What a reader was told that was never true, or not any more."""
    wrong = list(seen["lies"])
    for pool, version, node, state in seen["picks"]:
        sets = history.pools.get((pool, leader_of(node), version), (frozenset(),) * 3)
        if node not in sets[_PICKED[state]] or (state == "Suspect" and sets[0]):
            wrong.append(f"{node} ({state}) is not to be picked in version {version} of {pool}")
    for pool, leader, version, *sets in seen["wholes"]:
        if tuple(map(frozenset, sets)) != history.pools.get((pool, leader, version)):
            wrong.append(f"other members than those of version {version} of {pool} by leader {leader}")
    for pool, reason, complete, count in seen["nones"]:
        if complete or reason != "PoolUnknown":
            wrong.append(f"{pool} was never empty: {reason}, complete: {complete}, {count} times")
    for pool, last, now, begun, ended in seen["backs"]:
        if not any(begin <= ended and end >= begun for begin, end in history.losses):
            wrong.append(f"{pool} went back from {last} to {now} though nothing was lost")
    for node, found in seen["capabilities"].items():
        wrong += [f"{node} never was {types}" for types in found if types not in history.nodes[node]]
    return wrong
