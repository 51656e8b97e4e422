"""A dispatcher that asks at full speed until its input ends, and then prints what it saw, as JSON.

It prints ENOUGH as soon as it has seen enough versions of each pool.

What it cannot judge alone (which members a version has) it only collects. Names of nodes begin with the number of the
leader that gave them, as `g2-`, so leader and version tell any two answers apart.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter
from typing import Any

from hotpool.lookup import LookupFailed, NoMember, Picked, SyncLookup

BOUND_SECONDS = 3.0
ENOUGH_VERSIONS = 20
"""Versions of each pool that a reader sees before it prints `ENOUGH`."""
ENOUGH = "enough"
PAUSE_SECONDS = 0.01


def leader_of(node: str) -> int:
    """The number of the leader that gave a node."""
    return int(node.partition("-")[0].removeprefix("g"))


class Reader:
    """Everything that one connection was told."""

    def __init__(self, lookup: SyncLookup, pools: list[str], nodes: list[str]) -> None:
        self._lookup = lookup
        self._pools = pools
        self._nodes = nodes
        self._last: dict[str, tuple[tuple[int, int], float]] = {}
        self._begun = 0.0
        self.counts: Counter[str] = Counter()
        self.picks: set[tuple[str, int, str, str]] = set()
        self._short = {pool: set[tuple[int, int]]() for pool in pools}
        self.wholes: dict[tuple[str, int, int], set[tuple[tuple[str, ...], ...]]] = {}
        self.nones: Counter[tuple[str, str, bool]] = Counter()
        self.backs: list[tuple[str, tuple[int, int], tuple[int, int], float, float]] = []
        self.lies: list[str] = []
        self.capabilities: dict[str, set[str]] = {}

    def run(self, stopped: threading.Event) -> None:
        """Ask until told to stop."""
        turn = 0
        while not stopped.is_set():
            turn += 1
            self._begun = time.monotonic()
            try:
                self._ask(turn, self._pools[turn % len(self._pools)])
                self.counts["answered"] += 1
            except LookupFailed:
                self.counts["failed"] += 1
                time.sleep(PAUSE_SECONDS)
            except Exception as error:  # noqa: BLE001 - told as a lie, or nobody would look any more.
                self.lies.append(f"the reader died: {error!r}")
                _print(self.lies[-1])
                return

    def _ask(self, turn: int, pool: str) -> None:
        lookup = self._lookup
        kind = (turn // len(self._pools)) % 6
        if kind == 0:
            self._whole(pool)
        elif kind == 1:
            self._picked(pool, lookup.pick_key("pairs", pool))
        elif kind == 2:
            self._picked(pool, lookup.pick(pool, key=f"user-{turn}"))
        elif kind == 3:
            self._bounded(pool, lookup.pick(pool, max_age=BOUND_SECONDS))
        elif kind == 4:
            self._picked(pool, lookup.pick(pool, strategy="least-loaded"))
            self._capability(self._nodes[turn % len(self._nodes)])
        else:
            self._picked(pool, lookup.pick(pool))

    def _picked(self, pool: str, answer: Picked | NoMember) -> None:
        if isinstance(answer, NoMember):
            self.nones[pool, str(answer.reason), answer.complete] += 1
            return
        self.picks.add((pool, answer.version, answer.node, answer.state))
        now = leader_of(answer.node), answer.version
        self._went(pool, now)
        self._count(pool, now)

    def _count(self, pool: str, version: tuple[int, int]) -> None:
        if pool not in self._short:
            return
        self._short[pool].add(version)
        if len(self._short[pool]) > ENOUGH_VERSIONS:
            del self._short[pool]
            if not self._short:
                _print(ENOUGH)

    def _bounded(self, pool: str, answer: Picked | NoMember) -> None:
        fresh = answer.complete and answer.age_seconds is not None and answer.age_seconds <= BOUND_SECONDS
        if isinstance(answer, Picked):
            self._picked(pool, answer)
        elif fresh or answer.reason != "Stale":
            self.nones[pool, str(answer.reason), answer.complete] += 1
        if isinstance(answer, Picked) and not fresh:
            self.lies.append(f"too old, or incomplete: {answer}")

    def _whole(self, pool: str) -> None:
        found = self._lookup.members(pool)
        if found.version is None:
            self.nones[pool, "PoolUnknown", found.complete] += 1
            if found.ready or found.suspect or found.draining:
                self.lies.append(f"members of an unknown pool: {found}")
            return
        names = (*found.ready, *found.suspect, *found.draining)
        leaders = {leader_of(name) for name in names}
        if len(leaders) != 1:
            self.lies.append(f"{pool}: members of the leaders {sorted(leaders)} in version {found.version}")
            return
        leader = leaders.pop()
        self.wholes.setdefault((pool, leader, found.version), set()).add((found.ready, found.suspect, found.draining))
        self._went(pool, (leader, found.version))

    def _went(self, pool: str, now: tuple[int, int]) -> None:
        last, asked = self._last.get(pool, (now, self._begun))
        if now < last:
            self.backs.append((pool, last, now, asked, time.monotonic()))
        self._last[pool] = now, self._begun

    def _capability(self, node: str) -> None:
        found = self._lookup.capability(node)
        if found is None:
            return
        types = {kind: [state.ready, state.reason, list(state.services)] for kind, state in found.types.items()}
        self.capabilities.setdefault(node, set()).add(json.dumps(types, sort_keys=True))

    def told(self) -> dict[str, Any]:
        """All of it, for json."""
        return {
            "counts": self.counts,
            "picks": sorted(self.picks),
            "wholes": [[*key, *sets] for key, found in self.wholes.items() for sets in found],
            "nones": [[*key, count] for key, count in self.nones.items()],
            "backs": self.backs,
            "lies": self.lies,
            "capabilities": {node: sorted(found) for node, found in self.capabilities.items()},
        }


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    """Words: URL, whether it is a cluster, pools, nodes; each list with commas."""
    url, cluster, pools, nodes = sys.argv[1:]
    stopped = threading.Event()
    while True:
        try:
            lookup = SyncLookup.from_url(url, namespace="speech", cluster=cluster == "yes", timeout=1)
            break
        except LookupFailed:
            time.sleep(PAUSE_SECONDS)
    reader = Reader(lookup, pools.split(","), nodes.split(","))
    asking = threading.Thread(target=reader.run, args=(stopped,))
    asking.start()
    sys.stdin.read()
    stopped.set()
    asking.join()
    lookup.close()
    sys.stdout.write(json.dumps(reader.told()) + "\n")


if __name__ == "__main__":
    main()
