"""What happened, found as the difference between what was stored and what is stored now (requirements C6, D5, D11).

Pure. Conditions are told by a general rule, so that a new one needs nothing here.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

from hotpool.api.meta import Condition
from hotpool.core.model import Kind, Member
from hotpool.events.aggregator import EventDraft
from hotpool.events.messages import MembershipMessage, NameList, TextMessage

KINDS: Final = {Kind.NODE: "NodeCapability", Kind.POOL: "NodePool", Kind.GENERATOR: "NodePoolGenerator"}
"""The kinds that Events regard."""
_WANTED: Final = frozenset(
    {"Paused", "DryRun", "Draining", "Cordoned", "Leaving", "Requested", "AwaitingReport", "AwaitingHeartbeat"}
)
"""Reasons that people or a start bring about: no warning."""
_OVER: Final = {"Paused": "Resumed"}
"""How the end of a condition is called, where it is not called …Resolved."""
_TOLD_BY_READY: Final = {Kind.NODE: frozenset({"Draining"})}

StoredConditions = Mapping[str, tuple[str, str]]
"""Condition type → status and reason, as stored before."""
Members = Mapping[str, tuple[Member, ...]]
"""Slice name → members."""


def changed_conditions(kind: Kind, before: StoredConditions, after: Iterable[Condition]) -> list[EventDraft]:
    """Every condition that appeared, changed its status or reason, or went.

    Ready is told under its own reason on a node, else as Ready and NotReady; others as their type and its end.
    """
    now = {condition.type: condition for condition in after}
    quiet = _TOLD_BY_READY.get(kind, frozenset())
    found = [
        _condition_event(kind, before.get(type_), condition) for type_, condition in now.items() if type_ not in quiet
    ]
    gone = [
        _resolved(type_)
        for type_, stood in before.items()
        if type_ not in now and type_ not in quiet and _is_set(stood)
    ]
    return [happening for happening in (*found, *gone) if happening]


def _condition_event(kind: Kind, before: tuple[str, str] | None, now: Condition) -> EventDraft | None:
    stands = (now.status, now.reason)
    if before == stands:
        return None
    text = TextMessage(f"{now.reason}: {now.message}" if now.message else now.reason)
    if now.type == "Ready":
        name = now.reason if kind is Kind.NODE else "Ready" if now.status == "True" else "NotReady"
        return EventDraft(name, "SetCondition", text, warning=now.status != "True" and now.reason not in _WANTED)
    if _is_set(stands):
        return EventDraft(now.type, "SetCondition", text, warning=now.reason not in _WANTED)
    return _resolved(now.type) if before and _is_set(before) else None


def _is_set(stands: tuple[str, str]) -> bool:
    return stands[0] != "False"


def _resolved(type_: str) -> EventDraft:
    reason = _OVER.get(type_, f"{type_}Resolved")
    return EventDraft(reason, "SetCondition", TextMessage(f"{type_} is no longer true"))


def membership_changed(before: Members, after: Members, why: Mapping[str, str], *, dry_run: bool) -> EventDraft | None:
    """Who joined, left and changed in a pool's slices; a node that only changed its slice did not move.

    `why`: node → the gate that keeps it out; a node that is not known any more was deleted.
    """
    old, new = _different(before, after), _different(after, before)
    joined, left = sorted(new.keys() - old.keys()), sorted(old.keys() - new.keys())
    turned = sorted(node for node in old.keys() & new.keys() if old[node] != new[node])
    if dry_run and left and not any(after.values()):
        return EventDraft(
            "DryRunEmptied", "UpdateMembers", TextMessage(f"mode DryRun: all {len(left)} members were taken out")
        )
    moves = MembershipMessage(
        NameList.of(joined),
        NameList.of(left),
        NameList.of(turned),
        Counter(str(why.get(node, "Deleted")) for node in left),
        Counter(new[node] for node in turned),
    )
    return EventDraft("MembersChanged", "UpdateMembers", moves) if moves else None


def _different(these: Members, others: Members) -> dict[str, str]:
    """Node → state in those of these slices that differ from the others: the cost is that of the change."""
    return {
        member.node: member.state
        for name, members in these.items()
        if members != others.get(name)
        for member in members
    }
