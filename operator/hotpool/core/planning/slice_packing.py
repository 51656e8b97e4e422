"""Packing of a pool's members into slices (requirement D7): sticky, lowest free place first, merged by rule.

Pure. Works on slice indices and members, not on objects.
"""

from collections.abc import Iterator, Mapping
from itertools import count
from operator import attrgetter
from typing import NamedTuple

from hotpool.api.slice import MemberState
from hotpool.core.model import Member

Packing = dict[int, tuple[Member, ...]]
"""Slice index → members."""


class Packed(NamedTuple):
    """Slices of a pool; `membership_changed` is True if a node joined or left."""

    slices: Packing
    membership_changed: bool


_QUARTER = 4
_node_of = attrgetter("node")


def pack(
    current: Packing, desired: Mapping[str, MemberState], size: int, timestamp: str, changed: set[str] | None = None
) -> Packed:
    """Return slices with exactly the `desired` members: members keep their place, new ones take the lowest free place.

    Places in existing slices come first, then the lowest free index. A node listed twice keeps its first place. An
    empty slice is removed, except slice 0 of an empty pool: its next member then needs an update only, and no deletion
    comes between. `timestamp` becomes `since` of new members. `changed`: the only nodes of which `desired` can differ
    from `current`, to skip all others; None: any node.
    """
    result: Packing = {}
    placed: set[str] = set()
    removed = False
    for index in sorted(current):
        members = current[index]
        if members and changed is not None and changed.isdisjoint(map(_node_of, members)):
            result[index] = members
            continue
        kept = _keep_members(members, desired, placed, size)
        removed = removed or len(kept) < len(members)
        if kept:
            result[index] = kept
    new = sorted((desired.keys() if changed is None else desired.keys() & changed) - placed)
    if new:
        _add(result, [Member(node, desired[node], timestamp) for node in new], size)
    if not result and 0 in current:
        result[0] = ()
    return Packed(result, membership_changed=removed or bool(new))


def slice_to_merge(packing: Packing, size: int) -> int | None:
    """Return a slice less than a quarter full whose members fit into the free places of the others, or None.

    Of several, return the highest index, so that the indices stay dense from 0.
    """
    free = sum(size - len(members) for members in packing.values())
    for index in sorted(packing, reverse=True):
        members = len(packing[index])
        if members and _QUARTER * members < size and members <= free - (size - members):
            return index
    return None


def merge(packing: Packing, index: int, size: int) -> Packing:
    """Return the slices without one, whose members moved to free places of the others; their `since` stays."""
    others = {number: members for number, members in packing.items() if number != index}
    _add(others, list(packing[index]), size)
    return others


def _keep_members(
    members: tuple[Member, ...], desired: Mapping[str, MemberState], placed: set[str], size: int
) -> tuple[Member, ...]:
    """Return the members that stay. An unchanged slice returns the same tuple, which is fast to compare."""
    kept: list[Member] = []
    same = True
    for member in members:
        node = member.node
        state = desired.get(node)
        if state is None or node in placed or len(kept) == size:
            same = False
            continue
        placed.add(node)
        if member.state != state:
            same = False
            member = Member(node, state, member.since)  # noqa: PLW2901 - the same member in another state.
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
    """Yield the indices of slices with room: existing ones in order, then new ones."""
    existing = sorted(packing)
    used = set(existing)
    yield from (index for index in existing if len(packing[index]) < size)
    yield from (index for index in count() if index not in used)
