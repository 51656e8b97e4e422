"""Liveness of one node, tracked from its heartbeats and its silence (requirements C2 to C4).

Pure: all times are monotonic seconds. `core.cluster_cache` decides which events are heartbeats.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from hotpool.core.kube_node_health import NODE_SHUTDOWN, KubeNodeProblem
from hotpool.core.matching import NO_RESULT, MatchResult, match_silence
from hotpool.core.model import Liveness, Node, NodeView, StoredCondition

SUSPECT_AFTER: Final = 3
"""Heartbeat intervals of silence until a node is Suspect."""
OFFLINE_AFTER: Final = 4
"""Heartbeat intervals of silence until a node is Offline."""
OVERDUE_AFTER: Final = 1.2
"""Heartbeat intervals of silence that confirm a v1 Node whose Ready is Unknown (requirement C8).

More than one, because a renewal is sent one interval after the response to the former one.
"""
EXPIRED_AFTER: Final = 600.0
"""Seconds from Suspect until everything about the node is deleted (requirements C4, D8)."""
DEFAULT_INTERVAL: Final = 15.0
"""H of a node without a report or a Lease, in seconds."""
_SILENT_REASONS: Final = frozenset({"Offline", "AwaitingHeartbeat"})


def liveness_at(last_heartbeat: float, now: float, interval: float) -> Liveness:
    """Return the liveness at `now` with a heartbeat interval of `interval` seconds."""
    if now >= last_heartbeat + interval * OFFLINE_AFTER:
        return Liveness.OFFLINE
    return Liveness.SUSPECT if now >= last_heartbeat + interval * SUSPECT_AFTER else Liveness.LIVE


def next_change(last_heartbeat: float, interval: float, liveness: Liveness) -> float | None:
    """Return the time at which silence changes the liveness next, or None if it is Offline."""
    if liveness is Liveness.OFFLINE:
        return None
    return last_heartbeat + interval * (SUSPECT_AFTER if liveness is Liveness.LIVE else OFFLINE_AFTER)


@dataclass(slots=True)
class NodeLivenessTracker:
    """View of one node, and the times that its liveness depends on."""

    view: NodeView
    last_heartbeat: float | None = None
    """Start of its current silence: its last heartbeat, or the start of a fresh period. None: it is Offline."""
    seen_at: float | None = None
    """Time of the last heartbeat that this process received; None: none yet."""
    interval: float = DEFAULT_INTERVAL
    """H in seconds."""
    silent_since: float | None = None
    """Time when it became Suspect, from the stored condition if before this process; None while it has heartbeats."""
    grace_since: float = 0.0
    """Time since which a heartbeat would have been received; earlier silence is no evidence."""
    due: float | None = None
    """The node's valid deadline; its other entries in the heap of `ClusterCache` are obsolete."""
    _silence: tuple[NodeView | None, MatchResult] = (None, NO_RESULT)

    @property
    def silence(self) -> MatchResult:
        """Result of `match_silence` for the view, from the cache unless the view is another one."""
        view, result = self._silence
        if view is not self.view:
            view, result = self._silence = self.view, match_silence(self.view)
        return result

    def on_heartbeat(self, now: float) -> NodeView:
        """Record a heartbeat. Return the node's new view."""
        self.last_heartbeat, self.seen_at, self.silent_since = now, now, None
        before = self.view
        shut_down = before.shut_down and not before.kube_unknown
        if before.liveness is Liveness.LIVE and before.seen and not before.overdue and shut_down is before.shut_down:
            return before
        return replace(before, liveness=Liveness.LIVE, seen=True, expired=False, overdue=False, shut_down=shut_down)

    def restart_grace(self, now: float) -> None:
        """Start a fresh period, because silence until now is not confirmed (requirement C3)."""
        self.grace_since = now
        if self.last_heartbeat is not None:
            self.last_heartbeat = now

    def advance(self, now: float) -> NodeView:
        """Return the view after silence until `now`."""
        if self.view.liveness is Liveness.OFFLINE:
            expiry = self._expiry
            return replace(self.view, expired=True) if expiry is not None and now >= expiry else self.view
        liveness = (
            liveness_at(self.last_heartbeat, now, self.interval)
            if self.last_heartbeat is not None
            else self.view.liveness
        )
        if liveness is Liveness.LIVE or liveness is self.view.liveness:
            overdue_at = self._overdue_at
            return self.view if overdue_at is None or now < overdue_at else replace(self.view, overdue=True)
        if self.silent_since is None:
            self.silent_since = now
        return replace(self.view, liveness=liveness)

    def restore(self, now: float, wall_offset: float) -> NodeView:
        """Return the view of a new leader: silence stored by the former leader holds until a heartbeat (C4).

        A node that was silent when this process listed it, and of which the former leader received a heartbeat since,
        gets a full period.
        """
        stored = self.view.node.conditions.get("Ready")
        if stored is None or self.view.node.report is None:
            return self.view
        since = _stored_since(stored, now, wall_offset)
        if self.last_heartbeat is None and stored.reason not in _SILENT_REASONS:
            suspect = stored.reason == "Suspect"
            self.last_heartbeat, self.silent_since = now, since if suspect else None
            liveness = Liveness.SUSPECT if suspect else Liveness.LIVE
            return self._restore_kube_problem(
                replace(self.view, liveness=liveness, seen=True, expired=False), stored.reason
            )
        if stored.status != "Unknown":
            return self._restore_kube_problem(self.view, stored.reason)
        if self.seen_at is not None and self.seen_at > since:
            return self.view
        if self.silent_since is not None:
            self.silent_since = min(self.silent_since, since)
        if stored.reason in _SILENT_REASONS and self.view.liveness is not Liveness.OFFLINE:
            self.last_heartbeat, self.silent_since = None, since
            return replace(self.view, liveness=Liveness.OFFLINE, seen=stored.reason == "Offline")
        if stored.reason == "Suspect" and self.view.liveness is Liveness.LIVE:
            self.silent_since = since
            return replace(self.view, liveness=Liveness.SUSPECT)
        return self.view

    def _restore_kube_problem(self, view: NodeView, reason: str) -> NodeView:
        """Return `view` with the silence of a node that never beat in the time of this process (requirement C8)."""
        if self.seen_at is not None or not view.kube_unknown:
            return view
        if reason == KubeNodeProblem.UNREACHABLE:
            return replace(view, overdue=True)
        return replace(view, shut_down=True) if reason == NODE_SHUTDOWN and view.shut_down is None else view

    @property
    def was_never_judged(self) -> bool:
        """True if it reported, but neither an operator wrote its condition nor a heartbeat arrived."""
        node = self.view.node
        return self.last_heartbeat is None and node.report is not None and "Ready" not in node.conditions

    @property
    def next_change(self) -> float | None:
        """Time at which silence changes the view next; None: never."""
        if self.view.liveness is Liveness.OFFLINE:
            return self._expiry
        if self.last_heartbeat is None:
            return None
        overdue_at = self._overdue_at
        by_silence = next_change(self.last_heartbeat, self.interval, self.view.liveness)
        return by_silence if overdue_at is None or by_silence is None else min(by_silence, overdue_at)

    @property
    def _overdue_at(self) -> float | None:
        """Time at which silence makes the node overdue; None: it is, or its v1 Node's Ready is not Unknown."""
        if self.last_heartbeat is None or self.view.overdue or not self.view.kube_unknown:
            return None
        return self.last_heartbeat + self.interval * OVERDUE_AFTER

    @property
    def _expiry(self) -> float | None:
        """Time at which an Offline node expires, not before a heartbeat could have arrived (requirement C4)."""
        if self.silent_since is None or self.view.expired:
            return None
        return max(self.silent_since + EXPIRED_AFTER, self.grace_since + self.interval * OFFLINE_AFTER)


def initial_liveness(node: Node, now: float, *, known_before: bool, wall_offset: float) -> NodeLivenessTracker:
    """Return the tracker of a node seen first; with `known_before`, its stored condition decides (requirement C4).

    Live and Suspect nodes get a full period, silent ones stay silent until a heartbeat. `wall_offset`: Unix time minus
    monotonic seconds.
    """
    stored = node.conditions.get("Ready")
    silent = node.report is None or (known_before and (stored is None or stored.reason in _SILENT_REASONS))
    suspect = known_before and stored is not None and stored.reason == "Suspect"
    liveness = Liveness.OFFLINE if silent else Liveness.SUSPECT if suspect else Liveness.LIVE
    seen = not silent or (stored is not None and stored.reason == "Offline")
    reason = stored.reason if known_before and stored else ""
    view = NodeView(
        node,
        liveness,
        seen,
        overdue=reason == KubeNodeProblem.UNREACHABLE,
        shut_down=True if reason == NODE_SHUTDOWN else None,
    )
    tracker = NodeLivenessTracker(view, last_heartbeat=None if silent else now, grace_since=now)
    if node.report is not None and liveness is not Liveness.LIVE:
        tracker.silent_since = _stored_since(stored, now, wall_offset)
    return tracker


def _stored_since(stored: StoredCondition | None, now: float, wall_offset: float) -> float:
    """Return the start of the silence that a condition records: never in the future, and `now` if it records none."""
    if stored is None or stored.status != "Unknown":
        return now
    try:
        return min(now, datetime.fromisoformat(stored.since).timestamp() - wall_offset)
    except (ValueError, OverflowError):
        return now
