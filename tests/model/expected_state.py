"""The oracle's state: silence as far as an operator can know it, and the members that follow from it.

`tests.model.scenario` records each start, heartbeat and listing. Services of nodes and requirements of pools are read
from the API server's objects whenever members are computed. Requirements C2, C3, C4, D8.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from tests.model.endpoints import Claimant, Outcome, endpoints
from tests.model.kube_nodes import (
    announces_shutdown,
    has_off_taint,
    is_off,
    is_unknown,
    joined,
    ready_condition,
    stays_off,
)
from tests.model.membership import WINDOW, brake_holds, is_drained, matches, needs_endpoints
from tests.support.simulated_fleet import FakeApi

from hotpool.core.model import Kind

Json = dict[str, Any]

_NEVER = float("inf")
_OVERDUE = 1.2
"""Intervals of silence that make a node Suspect whose v1 Node is Unknown."""
_STALE_AFTER = 15.0
"""Seconds without a renewal of the probe Lease after which no silence counts."""
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
    masked_since: float = 0.0
    """The stored time of a silence that began while the agent left or the v1 Node was shut down."""
    masked_until: float = 0.0
    """The time at which the shutdown of the v1 Node ended last, and the condition showed the silence."""
    expired: bool = False
    unknown_since: float = 0.0
    """The time at which its v1 Node was received as Unknown last; silence until then counts from then on."""
    overdue: bool = False
    """It missed a heartbeat while its v1 Node is Unknown (C8)."""
    off: bool = False
    """The last that its kubelet said is a shutdown (C8)."""

    def on_heartbeat(self, now: float, *, unknown: bool) -> bool:
        """Record a heartbeat. Return True if its state changed. `unknown`: its kubelet is silent."""
        changed = self.state != "Live" or self.overdue or (self.off and unknown)
        self.last_heartbeat, self.state, self.expired = now, "Live", False
        self.overdue, self.off = False, self.off and not unknown
        return changed


@dataclass(slots=True)
class ExpectedState:
    """All nodes as the present operator can know them."""

    api: FakeApi
    trust_agents: bool = True
    """The setting endpoints.trustAgents."""
    now: float = 0.0
    counted_from: float = 0.0
    """No node's silence began before this moment."""
    confirmed_until: float = _NEVER
    """The Lease watch was alive until then. Silence counts for at most one interval more (docs/design/0003)."""
    stale: bool = False
    """The Lease watch is disconnected, or no operator runs: no silence counts."""
    nodes: dict[str, ExpectedNode] = field(default_factory=dict)
    kube: dict[str, Json] = field(default_factory=dict)
    """The v1 Nodes that the operator received last."""
    leases: dict[str, str] = field(default_factory=dict)
    """Node → the renewTime that the operator received last."""
    removable_by_silence: set[tuple[str, str]] = field(default_factory=set)
    """(pool, node) pairs that silence could remove at some moment since the last comparison."""
    joined_pools: set[tuple[str, str]] = field(default_factory=set)
    """(pool, node) pairs of members that were added since the last comparison."""
    removable_otherwise: set[tuple[str, str]] = field(default_factory=set)
    """(pool, node) pairs that another cause could remove at some moment since the last comparison."""
    last_overdue: float = 0.0
    """The time at which a node became overdue last."""
    last_transition: float = 0.0
    """The time at which silence changed the state of a node last."""
    last_change: float = 0.0
    """The time of the last event that may cause a write."""

    # Events.

    def start(self, now: float) -> None:
        """Restore all nodes from conditions, as a new operator does after its first listing (C4)."""
        self.kube = dict(self.api.objects[Kind.KUBE_NODE])
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
        ready, kube = condition(body, "Ready"), self.kube.get(body["metadata"]["name"])
        entry.overdue = bool(ready and ready["reason"] == "NodeUnreachable")
        entry.off = bool(ready and ready["reason"] == "NodeShutdown")
        entry.off = stays_off(None, kube, off=entry.off) if kube else entry.off
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
                overdue, off = entry.overdue, entry.off
                self._restore(entry, self.api.objects[Kind.NODE][name])
                entry.overdue, entry.off = overdue, off
                unmasked = entry.state == "Live" and not self._may_become_overdue(name)
                if unmasked and (due := self._due(name)) <= self.now:
                    entry.state, entry.since = "Suspect", due  # the standby saw it; the condition showed a shutdown

    def on_node(self, event: str | None, body: Json, now: float) -> None:
        """Record an event of a NodeCapability that the operator received."""
        name, uid = body["metadata"]["name"], body["metadata"]["uid"]
        entry = self.nodes.get(name)
        if event == "DELETED":
            if entry and entry.uid == uid:
                del self.nodes[name]
            return
        if entry is None or entry.uid != uid:
            off = announces_shutdown(self.kube.get(name))
            self.nodes[name] = ExpectedNode(uid, interval_of(body), now, report_version(body), off=off)
        elif report_version(body) not in {None, entry.report}:
            entry.report, entry.interval = report_version(body), interval_of(body)
            changed = entry.on_heartbeat(now, unknown=is_unknown(self.kube.get(name)))
            self.last_change = now if changed else self.last_change

    def on_kube_node(self, event: str | None, body: Json, now: float) -> None:
        """Record an event of a v1 Node that the operator received."""
        name, self.last_change = body["metadata"]["name"], now
        before, entry = self.kube.get(name), self.nodes.get(name)
        if event == "DELETED":
            if before and before["metadata"]["uid"] == body["metadata"]["uid"]:
                del self.kube[name]
                if entry and is_off(before, off=entry.off):
                    entry.masked_until = now
            return
        self.kube[name] = body
        if entry:
            was_off = is_off(before, off=entry.off)
            entry.off = stays_off(before, body, off=entry.off)
            entry.unknown_since = entry.unknown_since if is_unknown(before) else now
            entry.overdue = entry.overdue and is_unknown(body)
            entry.masked_until = now if was_off and not is_off(body, off=entry.off) else entry.masked_until
        self.advance(now)

    def on_lease(self, name: str, content: str, epoch: int, now: float) -> None:
        """Record an event of a Lease that the operator received."""
        entry = self.nodes.get(name)
        renewed = content != self.leases.get(name)
        self.leases[name] = content
        unknown = is_unknown(self.kube.get(name))
        if renewed and entry and entry.report and entry.report[0] == epoch and entry.on_heartbeat(now, unknown=unknown):
            self.last_change = now
        self.observe()

    def advance(self, now: float) -> None:
        """Apply silence until now, one transition after the other."""
        while True:
            due = min(((self._due(name), name) for name in self.nodes), default=(_NEVER, ""))
            if due[0] > now + _INSTANT or self.stale:
                break
            self.now = self.last_change = self.last_transition = max(self.now, due[0])
            self._transition(due[1])
            self.observe()
        self.now = now

    def is_near_transition(self, now: float, seconds: float) -> bool:
        """Return True if silence has changed or will change the state of a node within these seconds."""
        times = (self.last_transition, *map(self._due, self.nodes))
        return any(abs(time - now) < seconds for time in times)

    def _due(self, name: str) -> float:
        entry, silent = self.nodes[name], self._silent_for_long(name)
        when = max(silent, entry.unknown_since) if self._may_become_overdue(name) else silent
        stale_at = self.confirmed_until + _STALE_AFTER
        return when if silent <= self.confirmed_until + entry.interval and when <= stale_at else _NEVER

    def _silent_for_long(self, name: str) -> float:
        """Return the time from which the node's silence is that of its next state."""
        entry = self.nodes[name]
        base = max(entry.last_heartbeat, self.counted_from)
        if entry.report is None or entry.expired or entry.state == "Awaiting":
            return _NEVER
        if entry.state == "Offline":
            return max(entry.since + WINDOW, self.counted_from + 4 * entry.interval)
        if self._may_become_overdue(name):
            return base + _OVERDUE * entry.interval
        return base + (3 if entry.state == "Live" else 4) * entry.interval

    def _may_become_overdue(self, name: str) -> bool:
        entry = self.nodes[name]
        return entry.state == "Live" and not entry.overdue and is_unknown(self.kube.get(name))

    def _transition(self, name: str) -> None:
        entry = self.nodes[name]
        if self._may_become_overdue(name):
            entry.overdue, self.last_overdue = True, self.now
        elif entry.state == "Live":
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
        body = self.joined(node)
        active = (pool.get("spec") or {}).get("mode", "Active") == "Active"
        return body is not None and active and matches(pool, body, self._usable(pool).get(node, set()))

    def joined(self, node: str) -> Json | None:
        """Return a NodeCapability that the operator knows, with what its v1 Node adds."""
        body, entry = self.api.objects[Kind.NODE].get(node), self.nodes.get(node)
        return joined(body, self.kube.get(node), off=entry.off) if body and entry else None

    def shown_reason(self, node: str) -> str | None:
        """Return the reason that the v1 Node gives to the condition Ready of a node that beats, if any (C8)."""
        kube, entry = self.kube.get(node), self.nodes[node]
        if is_off(kube, off=entry.off):
            announced = announces_shutdown(kube) or (entry.off and not has_off_taint(kube or {}))
            return "NodeShutdown" if announced else "NodeOutOfService"
        if ready_condition(kube).get("status") == "False":
            return "NodeNotReady"
        return "NodeUnreachable" if is_unknown(kube) and entry.overdue else None

    def matching_nodes(self, pool: Json) -> list[tuple[str, ExpectedNode]]:
        """Return all nodes that meet the requirements, for a pool in mode DryRun too."""
        bodies = ((name, entry, self.joined(name)) for name, entry in self.nodes.items())
        usable = self._usable(pool)
        found = [(name, entry, body) for name, entry, body in bodies if body]
        return [(name, entry) for name, entry, body in found if matches(pool, body, usable.get(name, set()))]

    def _usable(self, pool: Json) -> dict[str, set[str]]:
        """Return node → its services with an endpoint, for a pool that requires them."""
        if not needs_endpoints(pool):
            return {}
        return {name: set(found.usable) for name, found in self.endpoints().items()}

    def endpoints(self) -> dict[str, Outcome]:
        """Return what each node gets of the addresses that it claims."""
        bodies = self.api.objects[Kind.NODE]
        return endpoints(
            {name: self._claimant(name, entry, bodies[name]) for name, entry in self.nodes.items() if name in bodies},
            trust_agents=self.trust_agents,
        )

    def _claimant(self, name: str, entry: ExpectedNode, body: Json) -> Claimant:
        kube = self.kube.get(name)
        return Claimant(body, kube, entry.state in {"Live", "Suspect"} and not is_off(kube, off=entry.off))

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
            late = "Draining" if is_drained(self.joined(node) or {}) else "Suspect"
            if entry.state in {"Live", "Suspect"}:
                ready = late == "Suspect" and entry.state == "Live" and self.shown_reason(node) is None
                must[node] = "Ready" if ready else late
            elif entry.state == "Awaiting":
                may[node] = late  # A member loses its condition when its object is deleted and created again.
            elif possible and not entry.expired and (name, node) in self.joined_pools:
                may[node] = late  # It joined and became Offline between two comparisons.
            elif possible and not entry.expired and (current is None or node in current):
                removable = self.removable_by_silence | self.removable_otherwise
                sure = certain and current is not None and (name, node) not in removable
                (must if sure else may)[node] = late
        return must, may

    def on_compared(self) -> None:
        """Forget past permissions: after a comparison, a removal needs a new cause."""
        self.removable_by_silence.clear()
        self.removable_otherwise.clear()
        self.joined_pools.clear()
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
