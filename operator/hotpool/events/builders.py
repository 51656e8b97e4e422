"""What happened, found as the difference between what was stored and what is stored now (behaviour C6, D5, D11).

Pure. Conditions are told by a general rule, so that a new one needs nothing here.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

from hotpool.api.meta import Condition
from hotpool.core.model import Kind, Member
from hotpool.events.aggregator import Happening
from hotpool.events.messages import Group, Moves, Said

KINDS: Final = {Kind.NODE: "NodeCapability", Kind.POOL: "NodePool", Kind.GENERATOR: "NodePoolGenerator"}
"""The kinds that Events regard."""
_WANTED: Final = frozenset(
    {"Paused", "DryRun", "Draining", "Cordoned", "Leaving", "Requested", "AwaitingReport", "AwaitingHeartbeat"}
)
"""Reasons that people or a start bring about: no warning."""
_OVER: Final = {"Paused": "Resumed"}
"""How the end of a condition is called, where it is not called …Over."""
_TOLD_BY_READY: Final = {Kind.NODE: frozenset({"Draining"})}

Standing = Mapping[str, tuple[str, str]]
"""Condition type → status and reason, as stored before."""
Members = Mapping[str, tuple[Member, ...]]
"""Slice name → members."""


def changed_conditions(kind: Kind, before: Standing, after: Iterable[Condition]) -> list[Happening]:
    """Every condition that appeared, changed its status or reason, or went.

    Ready is told under its own reason on a node, else as Ready and NotReady; others as their type and its end.
    """
    now = {condition.type: condition for condition in after}
    quiet = _TOLD_BY_READY.get(kind, frozenset())
    found = [_told(kind, before.get(type_), condition) for type_, condition in now.items() if type_ not in quiet]
    gone = [_over(type_) for type_, stood in before.items() if type_ not in now and type_ not in quiet and _on(stood)]
    return [happening for happening in (*found, *gone) if happening]


def _told(kind: Kind, before: tuple[str, str] | None, now: Condition) -> Happening | None:
    stands = (now.status, now.reason)
    if before == stands:
        return None
    text = Said(f"{now.reason}: {now.message}" if now.message else now.reason)
    if now.type == "Ready":
        name = now.reason if kind is Kind.NODE else "Ready" if now.status == "True" else "NotReady"
        return Happening(name, "SetCondition", text, warning=now.status != "True" and now.reason not in _WANTED)
    if _on(stands):
        return Happening(now.type, "SetCondition", text, warning=now.reason not in _WANTED)
    return _over(now.type) if before and _on(before) else None


def _on(stands: tuple[str, str]) -> bool:
    return stands[0] != "False"


def _over(type_: str) -> Happening:
    return Happening(_OVER.get(type_, f"{type_}Over"), "SetCondition", Said(f"{type_} does not hold any more"))


def moved(before: Members, after: Members, why: Mapping[str, str], *, dry_run: bool) -> Happening | None:
    """Who joined, left and changed in a pool's slices; a node that only changed its slice did not move.

    `why`: node → the gate that keeps it out; a node that is not known any more was deleted.
    """
    old, new = _different(before, after), _different(after, before)
    joined, left = sorted(new.keys() - old.keys()), sorted(old.keys() - new.keys())
    turned = sorted(node for node in old.keys() & new.keys() if old[node] != new[node])
    if dry_run and left and not any(after.values()):
        return Happening("DryRunEmptied", "UpdateMembers", Said(f"mode DryRun: all {len(left)} members were taken out"))
    moves = Moves(
        Group.of(joined),
        Group.of(left),
        Group.of(turned),
        Counter(str(why.get(node, "Deleted")) for node in left),
        Counter(new[node] for node in turned),
    )
    return Happening("MembersChanged", "UpdateMembers", moves) if moves else None


def _different(these: Members, others: Members) -> dict[str, str]:
    """Node → state in those of these slices that differ from the others: the cost is that of the change."""
    return {
        member.node: member.state
        for name, members in these.items()
        if members != others.get(name)
        for member in members
    }
