"""A pool with limits, dispatchers in processes of their own, and the oracle of their reservations.

The oracle: a reservation is certainly held from its answer until its release is sent or its duration is over, unless
the server loses data before. At no time more than the limit are certainly held. It does not depend on the numbers that
Redis keeps.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter, defaultdict
from math import inf
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

from tests.support.builders import core_report
from tests.support.capacity_fleet import SLOT_ENTRIES, SLOT_EXPIRIES, slots_in_use
from tests.support.redis_fixture_lookup import ENTRIES
from tests.support.redis_fleet import until
from tests.support.torture.dispatcher import HOLD_SECONDS, LATE_POOL, NODES, POOL

from hotpool.core.model import Endpoint, Meta, Node, ServiceOffer, StoredCondition
from hotpool.lookup import Lookup
from hotpool.projection.documents import PoolDocument
from localfleet.kind import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tests.support.redis_fleet import RedisFleet

LIMITS: Final[dict[str, tuple[dict[str, int], int | None]]] = {
    "cap-0": ({"fw": 2, "vosk": 1}, None),
    "cap-1": ({"fw": 2, "vosk": 2}, 3),
    "cap-2": ({"fw": 1}, None),
    "late-0": ({"fw": 1}, None),
}
"""Node → limit of each service of type asr, and of all together."""
_HANG_SECONDS: Final = 40.0
_ENOUGH: Final = {"held": 50, "Ejected": 2, "served": 10, "refused": 2}
"""Events of all dispatchers that a run must have."""
Record = list[Any]


def document(pool: str) -> PoolDocument:
    """Return a pool with limits, whose members never change."""
    nodes = NODES if pool == POOL else ("late-0",)
    return PoolDocument(pool, f"uid-{pool}", None, None, frozenset(nodes), frozenset(), frozenset())


DOCUMENTS: Final = {pool.digest: pool for pool in map(document, (POOL, LATE_POOL))}
"""Digest → document."""


def offer_services(fleet: RedisFleet) -> None:
    """Let the nodes with limits report their services, and create their pool."""
    fleet.set_pool(document(POOL))
    for name, (services, cap) in LIMITS.items():
        offers = [ServiceOffer(id_, "asr", max_concurrent=limit) for id_, limit in services.items()]
        live = {"Ready": StoredCondition("True", "Live", "", "t")}
        limits = {"asr": cap} if cap else {}
        fleet.put(Node(Meta(name, f"uid-{name}", 1), report=core_report(*offers), conditions=live, limits=limits))
        fleet.set_endpoints(name, *(Endpoint(id_, "asr", 6007, ("10.0.3.7",)) for id_ in services))


class Dispatchers:
    """Two dispatchers, one of each kind, of which one may be killed and replaced."""

    def __init__(self, url: str, *, cluster: bool) -> None:
        self._url, self._cluster = url, cluster
        self._folder = TemporaryDirectory()
        self._running: list[tuple[str, subprocess.Popen[str]]] = []
        self._started = 0
        for kind in ("async", "sync"):
            self._start(kind)

    def _start(self, kind: str) -> None:
        self._started += 1
        arguments = [self._url, "yes" if self._cluster else "no", kind, str(self._started)]
        command = [sys.executable, "-m", "tests.support.torture.dispatcher", *arguments, str(self._path(self._started))]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(REPOSITORY), *filter(None, sys.path)])}
        process = subprocess.Popen(command, cwd=REPOSITORY, env=environment, stdin=subprocess.PIPE, text=True)
        self._running.append((kind, process))

    def _path(self, number: int) -> Path:
        return Path(self._folder.name, f"{number}.jsonl")

    def replace_one(self) -> None:
        """Kill the oldest dispatcher, which holds reservations and waits, and start another one."""
        kind, process = self._running.pop(0)
        process.kill()
        process.wait()
        self._start(kind)

    def records(self) -> list[Record]:
        """Return the events of all dispatchers. A killed one may have written its last line in part."""
        paths = [path for number in range(1, self._started + 1) if (path := self._path(number)).exists()]
        lines = [line for path in paths for line in path.read_text().splitlines(keepends=True)]
        return [json.loads(line) for line in lines if line.endswith("]\n")]

    def seen_enough(self) -> bool:
        """Return True if each kind of event has been recorded often enough, or one that must not be."""
        counts = Counter(str(word) for record in self.records() for word in (record[0], record[-1]))
        return counts["lie"] > 0 or all(counts[kind] >= number for kind, number in _ENOUGH.items())

    async def finish(self, fleet: RedisFleet, client: Any) -> None:
        """Heal everything: stop the work, add the late pool, and check that each patient pick is served in turn.

        Then check that ejections changed no member, and that no slot is left after the longest reservation.
        """
        for _, process in self._running:
            assert process.stdin
            process.stdin.close()
        fleet.set_pool(document(LATE_POOL))
        await until(lambda: all(process.poll() is not None for _, process in self._running), _HANG_SECONDS)
        assert not any(process.returncode for _, process in self._running)
        patient = [record[1] for record in self.records() if record[0] == "patient"]
        assert patient == ["late-0"] * 2 * len(self._running), "a patient pick ended, but was not served"
        async with Lookup(client, namespace="speech") as lookup:
            assert (await lookup.members(POOL)).ready == NODES

            async def nothing_left() -> bool:
                await lookup.release("unknown")  # removes what has expired
                sizes = [await client.hlen(SLOT_ENTRIES), await client.zcard(SLOT_EXPIRIES)]
                sizes += [len(set(await client.hkeys(ENTRIES)) - {b".ledger"}), len(await slots_in_use(client))]
                return not any(sizes)

            await until(nothing_left, 20 * HOLD_SECONDS)

    def kill(self) -> None:
        """Kill the processes that still run, and delete the events."""
        for _, process in self._running:
            if process.poll() is None:
                process.kill()
                process.wait()
        self._folder.cleanup()


def dispatch_violations(losses: Iterable[tuple[float, float]], records: Sequence[Record]) -> list[str]:
    """Return the events of dispatchers that must not be. `losses`: periods in which the server lost data."""
    lost_in = sorted(losses)
    wrong = [record[1] for record in records if record[0] == "lie"]
    for kind, *words in records:
        if kind == "waited":
            wait, sent, ended, result = words
            if ended - sent > wait + _HANG_SECONDS or (result == "refused" and ended - sent < wait):
                wrong.append(f"a pick that waits {wait} s was {result} after {ended - sent} s")
    return wrong + _over_limits(lost_in, records) + _wrongly_lost(lost_in, records)


def _kept_until(lost_in: Sequence[tuple[float, float]], sent: float) -> float:
    """Return the time until which the server keeps what it does for a command that was sent at this time."""
    return next((start for start, end in lost_in if end > sent), inf)


def _over_limits(lost_in: Sequence[tuple[float, float]], records: Sequence[Record]) -> list[str]:
    freed = {record[1]: record[2] for record in records if record[0] == "freed"}
    changes: dict[tuple[str, str], list[tuple[float, int, str]]] = defaultdict(list)
    for kind, *words in records:
        if kind != "held":
            continue
        id_, node, services, sent, answered = words
        end = min(sent + HOLD_SECONDS, freed.get(id_, inf), _kept_until(lost_in, sent))
        for service in (*services.values(), "asr") if services and end > answered else ():
            changes[node, service] += [(answered, 1, id_), (end, -1, id_)]
    wrong = []
    for (node, service), events in changes.items():
        services, cap = LIMITS[node]
        limit, held = services.get(service, cap), Counter[str]()
        for at, change, id_ in sorted(events):
            held[id_] += change
            if limit and sum(number > 0 for number in held.values()) > limit:
                wrong.append(f"more than {limit} reservations of {service} on {node} at {at}")
    return wrong


def _wrongly_lost(lost_in: Sequence[tuple[float, float]], records: Sequence[Record]) -> list[str]:
    holds = {record[1]: record for record in records if record[0] == "held"}
    wrong = []
    for kind, *words in records:
        if kind == "lost":
            id_, _, answered = words
            sent = holds[id_][4]
            if answered < min(sent + HOLD_SECONDS, _kept_until(lost_in, sent)):
                wrong.append(f"reservation {id_} was lost though the server kept its data")
    return wrong
