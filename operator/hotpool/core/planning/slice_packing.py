"""How the members of a pool are packed into slices (requirement D7): sticky, lowest free place first, merged by rule.

Pure; knows indices and members, not objects.
"""

from collections.abc import Iterator, Mapping
from itertools import count
from operator import itemgetter
from typing import NamedTuple

from hotpool.api.slice import MemberState
from hotpool.core.model import Member

Packing = dict[int, tuple[Member, ...]]
"""Slice index → its members."""


class Packed(NamedTuple):
    """The slices of a pool, and whether a node came or left."""

    slices: Packing
    membership_changed: bool


_QUARTER = 4
_node_of = itemgetter(0)


def pack(
    current: Packing, wanted: Mapping[str, MemberState], size: int, now: str, changed: set[str] | None = None
) -> Packed:
    """The slices that hold exactly `wanted`: who is in stays in place, who is new takes the lowest free place.

    Places in slices that are there come first, then the lowest index that is free. A node that stands twice keeps its
    first place. An empty slice goes, but for slice 0 of an empty pool, so that its first member costs an update and no
    deletion stands between them. `now` becomes `since` of new members. `changed`: the only nodes of which `wanted` can
    differ from `current`, which saves a look at all others; None: any.
    """
    result: Packing = {}
    placed: set[str] = set()
    shorter = False
    for index in sorted(current):
        members = current[index]
        if members and changed is not None and changed.isdisjoint(map(_node_of, members)):
            result[index] = members
            continue
        kept = _keep_members(members, wanted, placed, size)
        shorter = shorter or len(kept) < len(members)
        if kept:
            result[index] = kept
    new = sorted((wanted.keys() if changed is None else wanted.keys() & changed) - placed)
    if new:
        _add(result, [Member(node, wanted[node], now) for node in new], size)
    if not result and 0 in current:
        result[0] = ()
    return Packed(result, membership_changed=shorter or bool(new))


def slice_to_merge(packing: Packing, size: int) -> int | None:
    """The slice to empty next: less than a quarter full, and its members fit into the free places of the others.

    Of several the one with the highest index, so that slices stay dense from 0 on.
    """
    free = sum(size - len(members) for members in packing.values())
    for index in sorted(packing, reverse=True):
        held = len(packing[index])
        if held and _QUARTER * held < size and held <= free - (size - held):
            return index
    return None


def merge(packing: Packing, index: int, size: int) -> Packing:
    """The slices after one is emptied into the free places of the others; `since` of the moved stays."""
    others = {number: members for number, members in packing.items() if number != index}
    _add(others, list(packing[index]), size)
    return others


def _keep_members(
    members: tuple[Member, ...], wanted: Mapping[str, MemberState], placed: set[str], size: int
) -> tuple[Member, ...]:
    """The members that stay; the very tuple where nothing changes, which is what most slices are."""
    kept: list[Member] = []
    same = True
    for member in members:
        node = member.node
        state = wanted.get(node)
        if state is None or node in placed or len(kept) == size:
            same = False
            continue
        placed.add(node)
        if member.state != state:
            same = False
            member = member._replace(state=state)  # noqa: PLW2901 - the same member in another state.
        kept.append(member)
    return members if same else tuple(kept)


def _add(packing: Packing, new: list[Member], size: int) -> None:
    for index in _indices_with_room(packing, size):
        if not new:
            return
        members = packing.get(index, ())
        room = size - len(members)
        packing[index] = (*members, *new[:room])
        new = new[room:]


def _indices_with_room(packing: Packing, size: int) -> Iterator[int]:
    """Slices with room: those that are there in their order, then new ones."""
    known = sorted(packing)
    there = set(known)
    yield from (index for index in known if len(packing[index]) < size)
    yield from (index for index in count() if index not in there)
