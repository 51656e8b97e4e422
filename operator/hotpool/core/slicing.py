"""How the members of a pool are packed into slices (behaviour D7): sticky, lowest free place first.

Called by `core.plan`. Pure; knows indices and members, not objects.
"""

from collections.abc import Mapping

from hotpool.api.slice import Member, MemberState

Packing = dict[int, tuple[Member, ...]]
"""Slice index → its members."""


def pack(current: Mapping[int, tuple[Member, ...]], wanted: Mapping[str, MemberState], size: int, now: str) -> Packing:
    """The slices that hold exactly `wanted`: who is in stays in place, who is new takes the lowest free place.

    A node that stands twice keeps its first place. An empty slice goes, but for slice 0, which an empty pool keeps so
    that its first member costs an update and no deletion stands between them. `now` becomes `since` of new members.
    """
    result: Packing = {}
    placed: set[str] = set()
    for index in sorted(current):
        kept = _kept(current[index], wanted, placed, size)
        if kept or index == 0:
            result[index] = kept
    _add(result, {node: state for node, state in sorted(wanted.items()) if node not in placed}, size, now)
    return result


def _kept(
    members: tuple[Member, ...], wanted: Mapping[str, MemberState], placed: set[str], size: int
) -> tuple[Member, ...]:
    kept: list[Member] = []
    for member in members:
        state = wanted.get(member.node)
        if state is None or member.node in placed or len(kept) == size:
            continue
        placed.add(member.node)
        kept.append(member if member.state == state else member.model_copy(update={"state": state}))
    return tuple(kept)


def _add(packing: Packing, new: Mapping[str, MemberState], size: int, now: str) -> None:
    index = 0
    waiting = [Member(node=node, state=state, since=now) for node, state in new.items()]
    while waiting:
        members = packing.get(index, ())
        free = size - len(members)
        if free > 0:
            packing[index] = (*members, *waiting[:free])
            waiting = waiting[free:]
        index += 1
