"""The last things that changed about a node, for `why` (requirement F2): its Ready reason and the types it can serve.

Held by the phases; what is found goes to Redis. Pure, and needed by look-up clients too: it must not import anything
heavy. What a process did not see, because it was not there, it does not tell.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hotpool.core.model import TypeState

NOT_REPORTED: Final = "NotReported"
_MAX_TYPES: Final = 20
"""Types of one transition that are told at most."""


@dataclass(frozen=True, slots=True)
class Transition:
    """One change of a node."""

    at: str
    """RFC 3339, by the operator's clock."""
    before: str | None = None
    """The reason of condition Ready before; None: there was none, or it stayed."""
    after: str | None = None
    """The reason of condition Ready from now on; None: it stayed."""
    gained: tuple[str, ...] = ()
    """Types that became ready."""
    lost: Mapping[str, str] = field(default_factory=dict)
    """Types that are not ready any more, with the reason."""


@dataclass(frozen=True, slots=True)
class _LastState:
    reason: str
    types: Mapping[str, TypeState]


@dataclass(slots=True)
class NodeHistory:
    """What was last seen of each node."""

    _last: dict[str, _LastState] = field(default_factory=dict)

    def record(
        self, node: str, reason: str, types: Mapping[str, TypeState], stored: str | None, at: str
    ) -> Transition | None:
        """What changed since the last call for this node.

        `stored`: the reason that its condition had, which counts at the first call; None: the node is new.
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
        """The node is gone."""
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
