"""What is known of one node: what it reported, when it was heard, and what its silence makes of it (requirement C2-C4).

Held by `core.cluster_cache`, which decides what counts as a heartbeat. Pure: all times are monotonic seconds.
"""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from hotpool.core.liveness import EXPIRED_AFTER, OFFLINE_AFTER, liveness_at, next_change
from hotpool.core.model import Liveness, Node, NodeView, StoredCondition

DEFAULT_INTERVAL: Final = 15.0
_SILENT_REASONS: Final = frozenset({"Offline", "AwaitingHeartbeat"})


@dataclass(slots=True)
class NodeLivenessTracker:
    """One node."""

    view: NodeView
    last_heartbeat: float | None = None
    """Since when its silence counts: its last heartbeat, or the beginning of a fresh period; None: it is silent."""
    seen_at: float | None = None
    """When this process heard it last; None: never, `beat` is then when it began to listen."""
    interval: float = DEFAULT_INTERVAL
    """H."""
    silent_since: float | None = None
    """When it became Suspect (before this process for what was stored); None while it beats."""
    grace_since: float = 0.0
    """Since when a heartbeat of it could have been heard: what was before is no evidence of silence."""
    due: float | None = None
    """The one deadline of the node that counts; other entries of the state's heap are leftovers."""

    def on_heartbeat(self, now: float) -> NodeView:
        """A heartbeat: the view that the node has from now on."""
        self.last_heartbeat, self.seen_at, self.silent_since = now, now, None
        if self.view.liveness is Liveness.LIVE and self.view.seen:
            return self.view
        return replace(self.view, liveness=Liveness.LIVE, seen=True, expired=False)

    def restart_grace(self, now: float) -> None:
        """A fresh period: whether the node was silent until now cannot be told (requirement C3)."""
        self.grace_since = now
        if self.last_heartbeat is not None:
            self.last_heartbeat = now

    def advance(self, now: float) -> NodeView:
        """The view after silence until `now`."""
        if self.view.liveness is Liveness.OFFLINE:
            expiry = self._expiry
            return replace(self.view, expired=True) if expiry is not None and now >= expiry else self.view
        liveness = (
            liveness_at(self.last_heartbeat, now, self.interval)
            if self.last_heartbeat is not None
            else self.view.liveness
        )
        if liveness is Liveness.LIVE or liveness is self.view.liveness:
            return self.view
        if self.silent_since is None:
            self.silent_since = now
        return replace(self.view, liveness=liveness)

    def restore(self, now: float, wall_offset: float) -> NodeView:
        """The view of a standby that takes over: silence that the former leader stored holds until a heartbeat (C4)."""
        recorded = self.view.node.conditions.get("Ready")
        if recorded is None or recorded.status != "Unknown" or self.view.node.report is None:
            return self.view
        since = _stored_since(recorded, now, wall_offset)
        if self.seen_at is not None and self.seen_at > since:
            return self.view
        if self.silent_since is not None:
            self.silent_since = min(self.silent_since, since)
        if recorded.reason in _SILENT_REASONS and self.view.liveness is not Liveness.OFFLINE:
            self.last_heartbeat, self.silent_since = None, since
            return replace(self.view, liveness=Liveness.OFFLINE, seen=recorded.reason == "Offline")
        if recorded.reason == "Suspect" and self.view.liveness is Liveness.LIVE:
            self.silent_since = since
            return replace(self.view, liveness=Liveness.SUSPECT)
        return self.view

    @property
    def next_change(self) -> float | None:
        """When silence changes the view next; None: never."""
        if self.view.liveness is Liveness.OFFLINE:
            return self._expiry
        return (
            None if self.last_heartbeat is None else next_change(self.last_heartbeat, self.interval, self.view.liveness)
        )

    @property
    def _expiry(self) -> float | None:
        """When an Offline node has been silent for long enough, as far as it could be heard (requirement C4)."""
        if self.silent_since is None or self.view.expired:
            return None
        return max(self.silent_since + EXPIRED_AFTER, self.grace_since + self.interval * OFFLINE_AFTER)


def initial_liveness(node: Node, now: float, *, known_before: bool, wall_offset: float) -> NodeLivenessTracker:
    """A node not known yet: new, or known before this process, where its stored condition says how it was (C4).

    Live and Suspect nodes get a full period, silent ones stay silent until a heartbeat. `wall_offset`: Unix time minus
    monotonic seconds.
    """
    recorded = node.conditions.get("Ready")
    silent = node.report is None or (known_before and (recorded is None or recorded.reason in _SILENT_REASONS))
    suspect = known_before and recorded is not None and recorded.reason == "Suspect"
    liveness = Liveness.OFFLINE if silent else Liveness.SUSPECT if suspect else Liveness.LIVE
    heard = not silent or (recorded is not None and recorded.reason == "Offline")
    record = NodeLivenessTracker(
        NodeView(node, liveness, heard), last_heartbeat=None if silent else now, grace_since=now
    )
    if node.report is not None and liveness is not Liveness.LIVE:
        record.silent_since = _stored_since(recorded, now, wall_offset)
    return record


def _stored_since(recorded: StoredCondition | None, now: float, wall_offset: float) -> float:
    """When the silence began that a condition tells of; never in the future, and now where it tells of none."""
    if recorded is None or recorded.status != "Unknown":
        return now
    try:
        return min(now, datetime.fromisoformat(recorded.since).timestamp() - wall_offset)
    except (ValueError, OverflowError):
        return now
