"""The last state this operator wrote, used to detect edits by other clients (requirements D5, D10).

Pure. An uncertain state (after a start, or a write without a response) never counts as an edit by another client.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from hotpool.core.model import Meta

T = TypeVar("T")


@dataclass(slots=True)
class _Owner(Generic[T]):
    uid: str
    children: dict[str, T]
    uncertain: set[str] = field(default_factory=set)
    before: dict[str, T] | None = None
    """The children at the start of the round in progress."""


@dataclass(slots=True)
class LastApplied(Generic[T]):
    """Owner → child → last state written."""

    _owners: dict[str, _Owner[T]] = field(default_factory=dict)

    def track(self, owner: Meta, found: Mapping[str, T]) -> None:
        """Start tracking an owner with its current children `found`, unless it is tracked. Call this first."""
        entry = self._owners.get(owner.name)
        if entry is None or entry.uid != owner.uid:
            self._owners[owner.name] = _Owner(owner.uid, dict(found))

    def begin_round(self, owner: Meta) -> None:
        """Begin a round of writes, or continue one that failed."""
        entry = self._owners[owner.name]
        if entry.before is None:
            entry.before = dict(entry.children)

    def end_round(self, owner: Meta, found: Mapping[str, T]) -> tuple[Mapping[str, T], Mapping[str, T]]:
        """End a successful round. Return the children before and after it and the failed rounds before it."""
        entry = self._owners[owner.name]
        for child in entry.uncertain:
            _set_or_remove(entry.children, child, found.get(child))
        entry.uncertain.clear()
        before, entry.before = entry.before or {}, None
        return before, entry.children

    def changed_by_others(self, owner: Meta, child: str, found: T | None) -> bool:
        """Return True if another client caused the state `found` of the child (None: it does not exist)."""
        entry = self._owners[owner.name]
        return child not in entry.uncertain and entry.children.get(child) != found

    def begin_write(self, owner: Meta, child: str) -> bool:
        """Make the state of the child uncertain before a write. Return True if it was certain."""
        entry = self._owners[owner.name]
        certain = child not in entry.uncertain
        entry.uncertain.add(child)
        return certain

    def write_rejected(self, owner: Meta, child: str) -> None:
        """Make the former state certain again after a write that changed nothing."""
        self._owners[owner.name].uncertain.discard(child)

    def write_stored(self, owner: Meta, child: str, value: T | None) -> None:
        """Record the written state of the child (None: deleted)."""
        entry = self._owners[owner.name]
        entry.uncertain.discard(child)
        _set_or_remove(entry.children, child, value)

    def retain(self, owner: Meta, children: set[str]) -> None:
        """Drop all children but these."""
        entry = self._owners[owner.name]
        entry.children = {child: value for child, value in entry.children.items() if child in children}

    def forget(self, owner: str) -> None:
        """Drop a deleted owner."""
        self._owners.pop(owner, None)


def _set_or_remove(children: dict[str, T], child: str, value: T | None) -> None:
    if value is None:
        children.pop(child, None)
    else:
        children[child] = value
