"""What we left behind, so that what others changed can be told from what we changed ourselves (requirements D5, D10).

Held by the narrator: one for the slices of pools, one for the pools of generators. Pure. What is not known for certain
(a process just started, an answer was lost) is never said to be another's doing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from hotpool.core.model import Meta

T = TypeVar("T")


@dataclass(slots=True)
class _Left(Generic[T]):
    uid: str
    children: dict[str, T]
    unsure: set[str] = field(default_factory=set)
    before: dict[str, T] | None = None
    """The children when the round began that has not ended yet."""


@dataclass(slots=True)
class LastApplied(Generic[T]):
    """Owner → child → how we left it."""

    _owners: dict[str, _Left[T]] = field(default_factory=dict)

    def track(self, owner: Meta, found: Mapping[str, T]) -> None:
        """Before all else. `found`: the children as they are, which count where nothing is known of this owner."""
        left = self._owners.get(owner.name)
        if left is None or left.uid != owner.uid:
            self._owners[owner.name] = _Left(owner.uid, dict(found))

    def begin_round(self, owner: Meta) -> None:
        """A round of writes begins, or one that failed is tried again."""
        left = self._owners[owner.name]
        if left.before is None:
            left.before = dict(left.children)

    def end_round(self, owner: Meta, found: Mapping[str, T]) -> tuple[Mapping[str, T], Mapping[str, T]]:
        """The round ended well: the children before and after it, and after those before it that failed."""
        left = self._owners[owner.name]
        for child in left.unsure:
            _put(left.children, child, found.get(child))
        left.unsure.clear()
        before, left.before = left.before or {}, None
        return before, left.children

    def changed_by_others(self, owner: Meta, child: str, found: T | None) -> bool:
        """Whether somebody else made the child what it is (None: deleted it, or never made it)."""
        left = self._owners[owner.name]
        return child not in left.unsure and left.children.get(child) != found

    def begin_write(self, owner: Meta, child: str) -> bool:
        """A write of the child is sent: what it is now is not known. Whether it was known until now."""
        left = self._owners[owner.name]
        known = child not in left.unsure
        left.unsure.add(child)
        return known

    def write_rejected(self, owner: Meta, child: str) -> None:
        """That write changed nothing, so what was known before is known still."""
        self._owners[owner.name].unsure.discard(child)

    def write_stored(self, owner: Meta, child: str, what: T | None) -> None:
        """That write was stored (None: the child was deleted)."""
        left = self._owners[owner.name]
        left.unsure.discard(child)
        _put(left.children, child, what)

    def retain(self, owner: Meta, children: set[str]) -> None:
        """Other children than these are of no interest any more."""
        left = self._owners[owner.name]
        left.children = {child: what for child, what in left.children.items() if child in children}

    def forget(self, owner: str) -> None:
        """The owner is gone."""
        self._owners.pop(owner, None)


def _put(children: dict[str, T], child: str, what: T | None) -> None:
    if what is None:
        children.pop(child, None)
    else:
        children[child] = what
