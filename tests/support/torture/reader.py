"""A dispatcher that sends look-ups at full speed until its input ends, and then prints its results as JSON.

Prints ENOUGH as soon as it has seen enough versions of each pool. Checks that need the written history are left to the
parent process. Names of nodes begin with the number of the leader that wrote them, as `g2-`, so leader and version
identify a document.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter
from typing import Any

from hotpool.lookup import LookupUnavailableError, NoMember, Picked, SyncLookup

BOUND_SECONDS = 3.0
ENOUGH_VERSIONS = 20
"""Versions of each pool that a reader must see before it prints `ENOUGH`."""
ENOUGH = "enough"
PAUSE_SECONDS = 0.01


def leader_of(node: str) -> int:
    """Return the number of the leader that wrote a node."""
    return int(node.partition("-")[0].removeprefix("g"))


class Reader:
    """Results of the look-ups of one connection."""

    def __init__(self, lookup: SyncLookup, pools: list[str], nodes: list[str]) -> None:
        self._lookup = lookup
        self._pools = pools
        self._nodes = nodes
        self._last: dict[str, tuple[tuple[int, int], float]] = {}
        self._asked_at = 0.0
        self.counts: Counter[str] = Counter()
        self.picks: set[tuple[str, int, str, str]] = set()
        self._seen_versions = {pool: set[tuple[int, int]]() for pool in pools}
        self.wholes: dict[tuple[str, int, int], set[tuple[tuple[str, ...], ...]]] = {}
        self.nones: Counter[tuple[str, str, bool]] = Counter()
        self.backs: list[tuple[str, tuple[int, int], tuple[int, int], float, float]] = []
        self.lies: list[str] = []
        self.capabilities: dict[str, set[str]] = {}

    def run(self, stopped: threading.Event) -> None:
        """Send look-ups until `stopped` is set."""
        turn = 0
        while not stopped.is_set():
            turn += 1
            self._asked_at = time.monotonic()
            try:
                self._ask(turn, self._pools[turn % len(self._pools)])
                self.counts["answered"] += 1
            except LookupUnavailableError:
                self.counts["failed"] += 1
                time.sleep(PAUSE_SECONDS)
            except Exception as error:  # noqa: BLE001 - reported as a violation, because the reader ends here.
                self.lies.append(f"the reader died: {error!r}")
                _print(self.lies[-1])
                return

    def _ask(self, turn: int, pool: str) -> None:
        lookup = self._lookup
        kind = (turn // len(self._pools)) % 6
        if kind == 0:
            self._ask_members(pool)
        elif kind == 1:
            self._record_pick(pool, lookup.pick_key("pairs", pool))
        elif kind == 2:
            self._record_pick(pool, lookup.pick(pool, key=f"user-{turn}"))
        elif kind == 3:
            self._check_bounded(pool, lookup.pick(pool, max_age=BOUND_SECONDS))
        elif kind == 4:
            self._record_pick(pool, lookup.pick(pool, strategy="least-loaded"))
            self._ask_capability(self._nodes[turn % len(self._nodes)])
        else:
            self._record_pick(pool, lookup.pick(pool))

    def _record_pick(self, pool: str, answer: Picked | NoMember) -> None:
        if isinstance(answer, NoMember):
            self.nones[pool, str(answer.reason), answer.complete] += 1
            return
        self.picks.add((pool, answer.version, answer.node, answer.state))
        now = leader_of(answer.node), answer.version
        self._check_order(pool, now)
        self._count_version(pool, now)

    def _count_version(self, pool: str, version: tuple[int, int]) -> None:
        if pool not in self._seen_versions:
            return
        self._seen_versions[pool].add(version)
        if len(self._seen_versions[pool]) > ENOUGH_VERSIONS:
            del self._seen_versions[pool]
            if not self._seen_versions:
                _print(ENOUGH)

    def _check_bounded(self, pool: str, answer: Picked | NoMember) -> None:
        fresh = answer.complete and answer.age_seconds is not None and answer.age_seconds <= BOUND_SECONDS
        if isinstance(answer, Picked):
            self._record_pick(pool, answer)
        elif fresh or answer.reason != "Stale":
            self.nones[pool, str(answer.reason), answer.complete] += 1
        if isinstance(answer, Picked) and not fresh:
            self.lies.append(f"too old, or incomplete: {answer}")

    def _ask_members(self, pool: str) -> None:
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
        self._check_order(pool, (leader, found.version))

    def _check_order(self, pool: str, now: tuple[int, int]) -> None:
        last, last_asked_at = self._last.get(pool, (now, self._asked_at))
        if now < last:
            self.backs.append((pool, last, now, last_asked_at, time.monotonic()))
        self._last[pool] = now, self._asked_at

    def _ask_capability(self, node: str) -> None:
        found = self._lookup.capability(node)
        if found is None:
            return
        types = {kind: [state.ready, state.reason, list(state.services)] for kind, state in found.types.items()}
        self.capabilities.setdefault(node, set()).add(json.dumps(types, sort_keys=True))

    def results(self) -> dict[str, Any]:
        """Return all results as values for JSON."""
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
    """Run a reader. Arguments: URL, `yes` for a cluster, pools and nodes separated by commas."""
    url, cluster, pools, nodes = sys.argv[1:]
    stopped = threading.Event()
    while True:
        try:
            lookup = SyncLookup.from_url(url, namespace="speech", cluster=cluster == "yes", timeout=1)
            break
        except LookupUnavailableError:
            time.sleep(PAUSE_SECONDS)
    reader = Reader(lookup, pools.split(","), nodes.split(","))
    thread = threading.Thread(target=reader.run, args=(stopped,))
    thread.start()
    sys.stdin.read()
    stopped.set()
    thread.join()
    lookup.close()
    sys.stdout.write(json.dumps(reader.results()) + "\n")


if __name__ == "__main__":
    main()
