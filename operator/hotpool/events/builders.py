"""Event drafts, built from the difference between former and current stored state (requirements C6, D5, D11).

Pure. A general rule covers all conditions, so that a new condition needs no code here.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from hotpool.api.meta import Condition
from hotpool.core.model import Kind, Member
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
    text = f"{now.reason}: {now.message}" if now.message else now.reason
    if now.type == "Ready":
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


def membership_changed(
    before: Members, after: Members, criteria: Mapping[str, str], *, dry_run: bool
) -> EventDraft | None:
    """Return an Event about nodes that joined, left or changed their state. A move between slices is no change.

    `criteria`: node → the first criterion that is not met. A node without an entry was deleted.
    """
    old, new = _different(before, after), _different(after, before)
    joined, left = new.keys() - old.keys(), old.keys() - new.keys()
    changed = [node for node in old.keys() & new.keys() if old[node] != new[node]]
    if dry_run and left and not any(after.values()):
        return EventDraft("DryRunEmptied", "UpdateMembers", f"mode DryRun: all {len(left)} members were removed")
    groups = (
        Group.of("joined", joined),
        Group.of("left", left, (str(criteria.get(node, "Deleted")) for node in left)),
        Group.of("changed", changed, (new[node] for node in changed)),
    )
    return EventDraft("MembersChanged", "UpdateMembers", groups) if joined or left or changed else None


def _different(these: Members, others: Members) -> dict[str, str]:
    """Return node → state of the slices that differ from the others, so that the cost depends on the change."""
    return {
        member.node: member.state
        for name, members in these.items()
        if members != others.get(name)
        for member in members
    }
