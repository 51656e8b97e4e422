"""Event drafts, built from the difference between former and current stored state (requirements C6, D5, D11).

Pure. A general rule covers all conditions, so that a new condition needs no code here.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from hotpool.api.meta import Condition
from hotpool.core.model import Kind, Member
from hotpool.core.service_incidents import ServiceIncident
from hotpool.events.aggregator import EventDraft
from hotpool.events.messages import Group

KINDS: Final = {Kind.NODE: "NodeCapability", Kind.POOL: "NodePool", Kind.GENERATOR: "NodePoolGenerator"}
"""Kinds that Events regard, in the API's spelling."""
_EXPECTED_REASONS: Final = frozenset(
    {
        "Paused",
        "DryRun",
        "Draining",
        "Cordoned",
        "Leaving",
        "NodeShutdown",
        "NodeOutOfService",
        "Requested",
        "AwaitingReport",
        "AwaitingHeartbeat",
    }
)
"""Reasons that people or a start cause: not a warning."""
_RESOLVED_REASONS: Final = {"Paused": "Resumed"}
"""Condition type → reason of the Event for its end, if not …Resolved."""
_POSITIVE: Final = {Kind.NODE: "Drained"}
"""Conditions that people wait for: an Event when one is True, and none when it is not."""
_COVERED_BY_READY: Final = {Kind.NODE: frozenset({"Draining"})}

StoredConditions = Mapping[str, tuple[str, str]]
"""Condition type → status and reason, as stored before."""
Members = Mapping[str, tuple[Member, ...]]
"""Slice name → members."""


def changed_conditions(kind: Kind, before: StoredConditions, after: Iterable[Condition]) -> list[EventDraft]:
    """Return an Event for every condition that appeared, changed its status or reason, or ended.

    Reason of the Event: Ready on a node has the condition's reason, Ready elsewhere Ready or NotReady, others the type.
    """
    now = {condition.type: condition for condition in after}
    covered = _COVERED_BY_READY.get(kind, frozenset())
    changed = [
        _condition_event(kind, before.get(type_), condition) for type_, condition in now.items() if type_ not in covered
    ]
    ended = [
        _resolved(type_)
        for type_, stored in before.items()
        if type_ not in now and type_ not in covered and type_ != _POSITIVE.get(kind) and _is_set(stored)
    ]
    return [draft for draft in (*changed, *ended) if draft]


def _condition_event(kind: Kind, before: tuple[str, str] | None, now: Condition) -> EventDraft | None:
    current = (now.status, now.reason)
    if before == current:
        return None
    text = now.message if now.message and now.reason == now.type else f"{now.reason}: {now.message}".removesuffix(": ")
    if now.type == "Ready":
        if kind is Kind.NODE:  # the Event's reason is that of the condition
            text = f"{now.message}; was {before[1]}" if before and before[1] != now.reason else now.message
        name = now.reason if kind is Kind.NODE else "Ready" if now.status == "True" else "NotReady"
        return EventDraft(
            name, "SetCondition", text, warning=now.status != "True" and now.reason not in _EXPECTED_REASONS
        )
    if now.type == _POSITIVE.get(kind):
        return EventDraft(now.type, "SetCondition", text) if now.status == "True" else None
    if _is_set(current):
        return EventDraft(now.type, "SetCondition", text, warning=now.reason not in _EXPECTED_REASONS)
    return _resolved(now.type) if before and _is_set(before) else None


def _is_set(current: tuple[str, str]) -> bool:
    return current[0] != "False"


def _resolved(type_: str) -> EventDraft:
    reason = _RESOLVED_REASONS.get(type_, f"{type_}Resolved")
    return EventDraft(reason, "SetCondition", f"{type_} is no longer true")


@dataclass(frozen=True, slots=True)
class MembershipDifference:
    """Difference between the members of a pool before and after a round of writes."""

    joined: Mapping[str, Member]
    left: Mapping[str, Member]
    """Node → its former entry."""
    changed: Mapping[str, tuple[Member, Member]]
    """Node → its former entry and the new one, of another state."""

    def __len__(self) -> int:
        return len(self.joined) + len(self.left) + len(self.changed)


def compare_members(before: Members, after: Members) -> MembershipDifference:
    """Return the nodes that joined, left or changed their state. A move between slices is no change."""
    old, new = _different(before, after), _different(after, before)
    return MembershipDifference(
        joined={node: member for node, member in new.items() if node not in old},
        left={node: member for node, member in old.items() if node not in new},
        changed={
            node: (old[node], member) for node, member in new.items() if node in old and old[node].state != member.state
        },
    )


def membership_changed(
    difference: MembershipDifference, reasons: Mapping[str, str], *, emptied_by_dry_run: bool
) -> EventDraft | None:
    """Return an Event about the difference. `reasons`: why each node left."""
    if not difference:
        return None
    if emptied_by_dry_run and difference.left:
        count = len(difference.left)
        return EventDraft("DryRunEmptied", "UpdateMembers", f"mode DryRun: all {count} members were removed")
    groups = (
        Group.of("joined", difference.joined),
        Group.of("left", difference.left, (reasons[node] for node in difference.left)),
        Group.of("changed", difference.changed, (now.state for _, now in difference.changed.values())),
    )
    return EventDraft("MembersChanged", "UpdateMembers", groups)


_INCIDENTS: Final = {"ServiceFailed": "failed", "ServiceFlapping": "flapping", "CommandRefused": "refused"}


def service_incident(incident: ServiceIncident) -> EventDraft:
    """Return an Event about a service of a node, such as `1 failed [whisper: killed by SIGKILL]`."""
    text = f"{incident.service}: {incident.message}"
    group = Group.of(_INCIDENTS[incident.reason], [text])
    return EventDraft(incident.reason, "ObserveService", (group,), warning=True)


def _different(these: Members, others: Members) -> dict[str, Member]:
    """Return node → entry of the slices that differ from the others, so that the cost depends on the change."""
    return {member.node: member for name, members in these.items() if members != others.get(name) for member in members}
