"""Transitions of a node for `hotpool why` (requirement F2): changes of its Ready reason and of its ready types.

Changes while no operator ran are not recorded. Pure. Must not import anything heavy: look-up clients import it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hotpool.core.model import TypeState

NOT_REPORTED: Final = "NotReported"
_MAX_TYPES: Final = 20
"""Bound of the types listed in one transition."""


@dataclass(frozen=True, slots=True)
class Transition:
    """One change of a node's Ready reason or ready types."""

    at: str
    """RFC 3339, by the operator's clock."""
    before: str | None = None
    """Former reason of condition Ready; None: there was none, or it did not change."""
    after: str | None = None
    """New reason of condition Ready; None: it did not change."""
    gained: tuple[str, ...] = ()
    """Types that became ready."""
    lost: Mapping[str, str] = field(default_factory=dict)
    """Type that is not ready any more → reason."""


@dataclass(frozen=True, slots=True)
class _LastState:
    reason: str
    types: Mapping[str, TypeState]


@dataclass(slots=True)
class NodeHistory:
    """Last recorded reason and types of each node."""

    _last: dict[str, _LastState] = field(default_factory=dict)

    def record(
        self, node: str, reason: str, types: Mapping[str, TypeState], stored: str | None, at: str
    ) -> Transition | None:
        """Return the change since the previous call for this node, or None.

        `stored`: reason of its stored condition, compared at the first call; None: the node is new.
        """
        known = self._last.get(node)
        self._last[node] = _LastState(reason, types)
        old = known.types if known else {} if stored is None else types
        before = known.reason if known else stored
        gained, lost = _gained(old, types), _lost(old, types)
        if before == reason and not gained and not lost:
            return None
        if before == reason:
            return Transition(at, gained=gained, lost=lost)
        return Transition(at, before, reason, gained, lost)

    def forget(self, node: str) -> None:
        """Delete the state of a node."""
        self._last.pop(node, None)


def _ready(types: Mapping[str, TypeState]) -> set[str]:
    return {type_ for type_, state in types.items() if state.ready}


def _gained(old: Mapping[str, TypeState], new: Mapping[str, TypeState]) -> tuple[str, ...]:
    return () if old is new else tuple(sorted(_ready(new) - _ready(old))[:_MAX_TYPES])


def _lost(old: Mapping[str, TypeState], new: Mapping[str, TypeState]) -> dict[str, str]:
    if old is new:
        return {}
    gone = sorted(_ready(old) - _ready(new))[:_MAX_TYPES]
    return {type_: (new[type_].reason or NOT_REPORTED) if type_ in new else NOT_REPORTED for type_ in gone}
