"""How a pick chooses, as dispatchers say it and as the server-side functions take it.

Pure: it must not do I/O.
"""

from __future__ import annotations

import math
import secrets
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple, TypedDict

from hotpool.projection.lookup.results import Counts, NoMember, Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from hotpool.projection.functions import Words

MAX_SECONDS = 86_400
"""The longest that a reservation or a load report holds."""
MIN_WEIGHT = 0.001
MAX_WEIGHT = 1e9
_ID_BYTES = 16
_REPORTED_AT_ONCE = 100


class Strategy(StrEnum):
    """How one of a pool's members is chosen: the Ready ones, or the Suspect ones when no Ready one is left."""

    UNIFORM = "uniform"
    """Each with the same chance."""
    LEAST_LOADED = "least-loaded"
    """The smallest sum of reservations and load reports, of all members or of 64 neighbours drawn; ties are drawn."""
    AFFINITY = "affinity"
    """By `key`: always the same one; when members come and go, only the keys of these move."""


class PickOptions(TypedDict, total=False):
    """What a pick may be told beside the pool. ValueError for what is out of bounds."""

    strategy: Strategy | str
    """A Strategy or its word. Default: affinity with a `key`, else uniform."""
    key: str
    """What stays on one node: a session, a user, a document. For affinity only."""
    exclude: Collection[str]
    """Nodes not to pick: as if they were not members."""
    reserve: float
    """Count the node as loaded for so many seconds, in the same step: up to a day; see release and renew."""
    weight: float
    """How much the reservation counts, 1 where it is not given; from 0.001 to 1e9."""
    max_age: float
    """Seconds: answer NoMember, reason Stale, when the operator vouched for the projection longer ago, or never, or
    the projection is incomplete."""


_OPTIONS = frozenset(PickOptions.__annotations__)


class PickRequest(NamedTuple):
    """One pick's wishes, checked; `reservation` is the id of the one that it shall make."""

    strategy: str
    draw: str
    limit: int | str
    reservation: tuple[str, float, int] | None
    exclude: tuple[str, ...]

    @classmethod
    def of(cls, how: PickOptions, chance: Callable[[], float]) -> PickRequest:
        """Check what is asked for. Raises ValueError or TypeError."""
        if not how:
            return cls("uniform", repr(chance()), "", None, ())
        strategy = Strategy(how.get("strategy") or (Strategy.AFFINITY if "key" in how else Strategy.UNIFORM))
        if (strategy is Strategy.AFFINITY) != bool(how.get("key")):
            raise ValueError("a key is for the strategy affinity, which needs one")
        unknown = how.keys() - _OPTIONS
        if unknown:
            raise TypeError(f"a pick knows no {', '.join(sorted(unknown))}")
        draw = how["key"] if strategy is Strategy.AFFINITY else repr(chance())
        reservation = None
        if "reserve" in how:
            made = secrets.token_hex(_ID_BYTES)
            reservation = (made, checked_weight(how.get("weight", 1)), milliseconds(how["reserve"]))
        elif "weight" in how:
            raise ValueError("a weight is for a reservation")
        limit = whole_milliseconds(how["max_age"]) if "max_age" in how else ""
        exclude = how.get("exclude", ())
        if isinstance(exclude, str):
            raise TypeError("exclude takes names of nodes, not one name")
        return cls(strategy.value, draw, limit, reservation, tuple(exclude))

    @property
    def needs_load(self) -> bool:
        """Tell whether the choice is by load."""
        return self.strategy == Strategy.LEAST_LOADED

    def arguments(self, field: str) -> Words:
        """Return what the function takes; `field`: the entry of the index that the pool must have, '' for any."""
        words = (*self.reservation, self.strategy, self.draw) if self.reservation else (self.strategy, self.draw)
        if field or self.limit != "" or self.exclude:
            return (*words, field, self.limit, *self.exclude)
        return words

    def unknown(self, field: str, age: float | None, complete: bool) -> NoMember:  # noqa: FBT001 - as freshness tells it.
        """Return the answer where the index has no such entry, as the function `pick` answers for an unknown pool."""
        limit = self.limit
        stale = limit != "" and (age is None or not complete or age * 1000 > float(limit))
        return NoMember(field, Reason.STALE if stale else Reason.POOL_UNKNOWN, _NO_NODES, age, complete)


_NO_NODES = Counts(members=0, ready=0, suspect=0, draining=0, excluded=0)


def checked_weight(value: float) -> float:
    """Return a weight that the functions accept. Raises ValueError."""
    if not MIN_WEIGHT <= value <= MAX_WEIGHT:
        raise ValueError(f"a weight is from {MIN_WEIGHT} to {MAX_WEIGHT:g}: {value!r}")
    return value


def whole_milliseconds(seconds: float) -> int:
    """Return seconds, 0 or more, in milliseconds. Raises ValueError."""
    if not (seconds >= 0 and math.isfinite(seconds)):
        raise ValueError(f"seconds are 0 or more: {seconds!r}")
    return round(seconds * 1000)


def milliseconds(seconds: float) -> int:
    """Return how long something holds, in milliseconds. Raises ValueError."""
    if not 0.001 <= seconds <= MAX_SECONDS:  # noqa: PLR2004 - one millisecond.
        raise ValueError(f"a reservation or report holds from 0.001 to {MAX_SECONDS} seconds: {seconds!r}")
    return round(seconds * 1000)


def report_arguments(loads: Mapping[str, float], source: str, seconds: float) -> list[Words]:
    """Return what the function `report` takes, call by call: each holds Redis up for a moment. Raises ValueError."""
    if not source:
        raise ValueError("a load report needs a source")
    span = milliseconds(seconds)
    pairs: Sequence[tuple[str, float]] = [(node, checked_weight(load) if load else 0) for node, load in loads.items()]
    parts = [pairs[first : first + _REPORTED_AT_ONCE] for first in range(0, len(pairs), _REPORTED_AT_ONCE)] or [[]]
    return [(source, span, *(word for pair in part for word in pair)) for part in parts]
