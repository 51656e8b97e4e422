"""The oracle's state: silence as far as an operator can know it, and the members that follow from it.

`tests.model.scenario` records each start, heartbeat and listing. Services of nodes and requirements of pools are read
from the API server's objects whenever members are computed. Requirements C2, C3, C4, D8.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from tests.model.membership import WINDOW, brake_holds, is_drained, matches
from tests.support.simulated_fleet import FakeApi

from hotpool.core.model import Kind

Json = dict[str, Any]

_NEVER = float("inf")
_INSTANT = 1e-4
"""Stored times are rounded."""


@dataclass(slots=True)
class ExpectedNode:
    """One node: its last heartbeat and its liveness."""

    uid: str
    interval: float
    last_heartbeat: float
    report: tuple[int, int] | None
    state: str = "Live"
    since: float = 0.0
    """The time at which it became Suspect, as stored by the operator."""
    expired: bool = False

    def on_heartbeat(self, now: float) -> bool:
        """Record a heartbeat. Return True if the node was not Live."""
        changed = self.state != "Live"
        self.last_heartbeat, self.state, self.expired = now, "Live", False
        return changed


@dataclass(slots=True)
class ExpectedState:
    """All nodes as the present operator can know them."""

    api: FakeApi
    now: float = 0.0
    counted_from: float = 0.0
    """No node's silence began before this moment."""
    confirmed_until: float = _NEVER
    """The Lease watch was alive until then. Silence counts for at most one interval more (docs/design/0003)."""
    stale: bool = False
    """The Lease watch is disconnected, or no operator runs: no silence counts."""
    nodes: dict[str, ExpectedNode] = field(default_factory=dict)
    leases: dict[str, str] = field(default_factory=dict)
    """Node → the renewTime that the operator received last."""
    removable_by_silence: set[tuple[str, str]] = field(default_factory=set)
    """(pool, node) pairs that silence could remove at some moment since the last comparison."""
    removable_otherwise: set[tuple[str, str]] = field(default_factory=set)
    """(pool, node) pairs that another cause could remove at some moment since the last comparison."""
    last_change: float = 0.0
    """The time of the last event that may cause a write."""

    # Events.

    def start(self, now: float) -> None:
        """Restore all nodes from conditions, as a new operator does after its first listing (C4)."""
        self.nodes = {name: self._listed(body, now) for name, body in self.api.objects[Kind.NODE].items()}
        self.now = self.counted_from = self.last_change = now
        self.watch_restored()
        self.observe()

    def watch_restored(self) -> None:
        """Let silence count again: the Lease watch is alive."""
        self.confirmed_until, self.stale = _NEVER, False

    def _listed(self, body: Json, now: float) -> ExpectedNode:
        entry = ExpectedNode(body["metadata"]["uid"], interval_of(body), now, report_version(body))
        self._restore(entry, body)
        slices = self.api.objects[Kind.SLICE].values()
        listed = any(item["node"] == body["metadata"]["name"] for part in slices for item in part["members"])
        if listed and entry.report and condition(body, "Ready") is None:
            entry.state = "Live"  # It was not silent: the condition was not written, or the object is a new one.
        return entry

    def _restore(self, entry: ExpectedNode, body: Json) -> None:
        """Restore a node from its condition. Without one, an operator waits for its first heartbeat."""
        ready = condition(body, "Ready")
        if ready is None or ready["reason"] == "AwaitingHeartbeat":
            entry.state = "Awaiting"
        elif ready["status"] == "Unknown" and ready["reason"] in {"Suspect", "Offline"}:
            entry.state, entry.since = ready["reason"], transition_time(ready)
        else:
            entry.state = "Live"

    def on_takeover(self, since: float) -> None:
        """Continue as a standby that has watched since `since`, with the conditions that the leader stored last."""
        self.counted_from = max(self.counted_from, since)
        for name, entry in self.nodes.items():
            if entry.state in {"Suspect", "Offline"} and name in self.api.objects[Kind.NODE]:
                entry.expired = False
                self._restore(entry, self.api.objects[Kind.NODE][name])

    def on_node(self, event: str | None, body: Json, now: float) -> None:
        """Record an event of a NodeCapability that the operator received."""
        name, uid = body["metadata"]["name"], body["metadata"]["uid"]
        entry = self.nodes.get(name)
        if event == "DELETED":
            if entry and entry.uid == uid:
                del self.nodes[name]
            return
        if entry is None or entry.uid != uid:
            self.nodes[name] = ExpectedNode(uid, interval_of(body), now, report_version(body))
        elif report_version(body) not in {None, entry.report}:
            entry.report, entry.interval = report_version(body), interval_of(body)
            self.last_change = now if entry.on_heartbeat(now) else self.last_change

    def on_lease(self, name: str, content: str, epoch: int, now: float) -> None:
        """Record an event of a Lease that the operator received."""
        entry = self.nodes.get(name)
        renewed = content != self.leases.get(name)
        self.leases[name] = content
        if renewed and entry and entry.report and entry.report[0] == epoch and entry.on_heartbeat(now):
            self.last_change = now
        self.observe()

    def advance(self, now: float) -> None:
        """Apply silence until now, one transition after the other."""
        while True:
            due = min(((self._due(entry), name) for name, entry in self.nodes.items()), default=(_NEVER, ""))
            if due[0] > now + _INSTANT or self.stale:
                break
            self.now = self.last_change = max(self.now, due[0])
            self._transition(self.nodes[due[1]])
            self.observe()
        self.now = now

    def _due(self, entry: ExpectedNode) -> float:
        when = self._next_transition(entry)
        return when if when <= self.confirmed_until + min(entry.interval, 15.0) else _NEVER

    def _next_transition(self, entry: ExpectedNode) -> float:
        """Return the time at which silence changes the node's state."""
        base = max(entry.last_heartbeat, self.counted_from)
        if entry.report is None or entry.expired or entry.state == "Awaiting":
            return _NEVER
        if entry.state == "Offline":
            return max(entry.since + WINDOW, self.counted_from + 4 * entry.interval)
        return base + (3 if entry.state == "Live" else 4) * entry.interval

    def _transition(self, entry: ExpectedNode) -> None:
        if entry.state == "Live":
            entry.state, entry.since = "Suspect", self.now
        elif entry.state == "Suspect":
            entry.state = "Offline"
        else:
            entry.expired = True

    # Members.

    def observe(self) -> None:
        """Record the members that may be removed at this moment."""
        for name, pool in self.api.objects[Kind.POOL].items():
            members = self.api.members(name)
            for node in members:
                if not self.may_be_member(pool, node):
                    self.removable_otherwise.add((name, node))
            offline = [node for node in members if node in self.nodes and self.nodes[node].state == "Offline"]
            if offline and not is_paused(pool):
                braked, _ = self.brake_holds(pool)
                free = [node for node in offline if not braked or self.nodes[node].expired]
                self.removable_by_silence |= {(name, node) for node in free}

    def may_be_member(self, pool: Json, node: str) -> bool:
        """Return True if nothing but silence can keep the node out of the pool."""
        body = self.api.objects[Kind.NODE].get(node)
        active = (pool.get("spec") or {}).get("mode", "Active") == "Active"
        return body is not None and node in self.nodes and active and matches(pool, body)

    def matching_nodes(self, pool: Json) -> list[tuple[str, ExpectedNode]]:
        """Return all nodes that meet the requirements, for a pool in mode DryRun too."""
        bodies = self.api.objects[Kind.NODE]
        return [(name, entry) for name, entry in self.nodes.items() if name in bodies and matches(pool, bodies[name])]

    def brake_holds(self, pool: Json) -> tuple[bool, bool]:
        """Return whether the brake certainly holds in a pool, and whether it may (D8).

        The requirements do not say how a node counts before its first heartbeat to a new operator.
        """
        fit = [entry for _, entry in self.matching_nodes(pool)]
        silent = sum(1 for entry in fit if entry.state in {"Suspect", "Offline"} and not entry.expired)
        live = sum(1 for entry in fit if entry.state == "Live")
        percent = ((pool.get("spec") or {}).get("brake") or {}).get("maxSilentPercent", 30)
        awaited = sum(1 for entry in fit if entry.state == "Awaiting")
        answers = {brake_holds(silent + some, live, percent) for some in (0, awaited)}
        return answers == {True}, True in answers

    def expected_members(self, name: str, current: Iterable[str] | None) -> tuple[dict[str, str], dict[str, str]]:
        """Return node → state of the nodes that must be members, and of those that may be.

        `current`: the members before; None if they are unknown.
        """
        pool = self.api.objects[Kind.POOL][name]
        certain, possible = self.brake_holds(pool)
        must: dict[str, str] = {}
        may: dict[str, str] = {}
        for node, entry in self.matching_nodes(pool):
            drained = is_drained(self.api.objects[Kind.NODE][node])
            late = "Draining" if drained else "Suspect"
            if entry.state in {"Live", "Suspect"}:
                must[node] = "Draining" if drained else {"Live": "Ready"}.get(entry.state, late)
            elif entry.state == "Awaiting":
                may[node] = late  # A member loses its condition when its object is deleted and created again.
            elif possible and not entry.expired and (current is None or node in current):
                sure = certain and current is not None and (name, node) not in self.removable_by_silence
                (must if sure else may)[node] = late
        return must, may

    def on_compared(self) -> None:
        """Forget past permissions: after a comparison, a removal needs a new cause."""
        self.removable_by_silence.clear()
        self.removable_otherwise.clear()
        self.observe()


def is_paused(body: Json) -> bool:
    """Return True if a pool or generator is paused (D11)."""
    return bool((body["metadata"].get("annotations") or {}).get("hotpool.dev/paused") == "true")


def report_version(body: Json) -> tuple[int, int] | None:
    """Return epoch and sequence of a NodeCapability's report, if any."""
    report = (body.get("status") or {}).get("report")
    return (report["epoch"], report["sequence"]) if report else None


def interval_of(body: Json) -> float:
    """Return H of a node in seconds."""
    return float(((body.get("status") or {}).get("report") or {}).get("intervalSeconds", 15))


def condition(body: Json, type_: str) -> Json | None:
    """Return the condition of this type, if any."""
    found = (body.get("status") or {}).get("conditions") or []
    return next((item for item in found if item["type"] == type_), None)


def transition_time(item: Json) -> float:
    """Return the lastTransitionTime of a condition in simulated seconds."""
    return datetime.fromisoformat(item["lastTransitionTime"]).timestamp()
