"""Options of a pick, and their encoding as arguments of the Redis functions.

Pure: must not do I/O.
"""

import math
import re
import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from enum import StrEnum
from functools import lru_cache
from typing import Final, Literal, NamedTuple, TypedDict

from hotpool.projection.functions import CommandArgs
from hotpool.projection.lookup.results import Counts, NoMember, Reason

MAX_SECONDS = 86_400
"""Longest duration of a reservation or a load report."""
MIN_WEIGHT = 0.001
MAX_WEIGHT = 1e9
_ID_BYTES = 16
_NODES_PER_REPORT = 100


class Strategy(StrEnum):
    """Strategy to choose one of the Ready members, or of the Suspect ones if no Ready one is left."""

    UNIFORM = "uniform"
    """Equal probability for each member."""
    LEAST_LOADED = "least-loaded"
    """Smallest sum of reservations and load reports, of all members or of 64 random neighbours. Ties are random."""
    AFFINITY = "affinity"
    """Same node for the same `key`. If members come and go, only their keys move."""


class PickOptions(TypedDict, total=False):
    """Options of a pick. Values out of bounds raise ValueError."""

    strategy: Strategy | str
    """A Strategy or its value. Default: affinity with a `key`, else uniform."""
    key: str
    """Key of a session, user or document that stays on one node. For affinity only."""
    exclude: Collection[str]
    """Nodes that must not be picked."""
    reserve: float
    """Seconds, at most a day, for which the node counts as loaded, atomically with the pick; see release and renew."""
    weight: float
    """Load of the reservation, from 0.001 to 1e9. Default: 1."""
    max_age: float
    """Maximum age in seconds. If the projection is older, has no stamp or is incomplete, the result is NoMember,
    reason Stale."""
    endpoint: bool
    """True: pick only a node that has an endpoint of every required type of the pool, or of every one of `types`."""
    types: Collection[str]
    """Types whose endpoints are asked for and returned, as with `endpoint`. Default: the required types of the pool."""
    family: Literal[4, 6]
    """IP version of the endpoints asked for and returned, as with `endpoint`. Default: the node's preferred address."""
    wait: float
    """Seconds, at most a day, to wait for a node that can be picked, for a reservation one that has room."""


_OPTIONS = frozenset(PickOptions.__annotations__)


class PickRequest(NamedTuple):
    """Validated options of one pick. `reservation`: id, weight and milliseconds of a new reservation."""

    strategy: str
    chance_or_key: str
    max_age_ms: int | str
    reservation: tuple[str, float, int] | None
    exclude: tuple[str, ...]
    endpoints: str = ""
    """Endpoints asked for: `family:type,type...`, both of which may be empty; empty: none."""

    @classmethod
    def from_options(cls, options: PickOptions, chance: Callable[[], float]) -> "PickRequest":
        """Validate options. Raises ValueError or TypeError."""
        if not options:
            return cls("uniform", repr(chance()), "", None, ())
        default = Strategy.AFFINITY if "key" in options else Strategy.UNIFORM
        strategy = Strategy(options["strategy"]) if options.get("strategy") else default
        if (strategy is Strategy.AFFINITY) != bool(options.get("key")):
            raise ValueError("strategy affinity needs a key, and the other strategies take none")
        if not options.keys() <= _OPTIONS:
            raise TypeError(f"unknown options of a pick: {', '.join(sorted(options.keys() - _OPTIONS))}")
        draw = options["key"] if strategy is Strategy.AFFINITY else repr(chance())
        reservation = None
        if "reserve" in options:
            identity = secrets.token_hex(_ID_BYTES)
            reservation = (identity, check_weight(options.get("weight", 1)), ttl_milliseconds(options["reserve"]))
        elif "weight" in options:
            raise ValueError("weight needs the option reserve")
        if "wait" in options and not 0 <= options["wait"] <= MAX_SECONDS:
            raise ValueError(f"wait must be from 0 to {MAX_SECONDS} seconds: {options['wait']!r}")
        limit = to_milliseconds(options["max_age"]) if "max_age" in options else ""
        exclude = options.get("exclude", ())
        if isinstance(exclude, str):
            raise TypeError("exclude must be a collection of node names, not one string")
        return cls(strategy.value, draw, limit, reservation, tuple(exclude), _endpoints(options))

    @property
    def needs_load(self) -> bool:
        """Return True if the strategy reads loads."""
        return self.strategy == Strategy.LEAST_LOADED

    def arguments(self, field: str) -> CommandArgs:
        """Return the arguments of the function. `field`: index field that the pool must have, '' for any."""
        words = (
            (*self.reservation, self.strategy, self.chance_or_key)
            if self.reservation
            else (self.strategy, self.chance_or_key)
        )
        if field or self.max_age_ms != "" or self.exclude:
            return (*words, self.endpoints, field, self.max_age_ms, *self.exclude)
        return (*words, self.endpoints) if self.endpoints else words

    def without_pool(self, field: str, reason: Reason, age: float | None, complete: bool) -> NoMember:  # noqa: FBT001 - as parse_freshness returns it.
        """Return the result for a missing index field, equal to that of the function `pick` for a missing pool."""
        limit = self.max_age_ms
        stale = limit != "" and (age is None or not complete or age * 1000 > float(limit))
        return NoMember(field, Reason.STALE if stale else reason, _NO_NODES, age, complete)


_TYPE: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")


def _endpoints(options: PickOptions) -> str:
    """Return the field `endpoints` of a request."""
    types, family = options.get("types"), options.get("family")
    if types is None and family is None:
        return ":" if options.get("endpoint") else ""
    if isinstance(types, str):
        raise TypeError("types must be a collection of types, not one string")
    return _encode_endpoints(None if types is None else tuple(types), family)


@lru_cache(maxsize=1024)
def _encode_endpoints(types: tuple[str, ...] | None, family: int | None) -> str:
    if types is not None and not types:
        raise ValueError("types must not be empty: leave it out for all required types of the pool")
    for kind in types or ():
        if not _TYPE.fullmatch(kind):
            raise ValueError(f"a type has lower-case letters, digits and hyphens: {kind!r}")
    if family not in {None, 4, 6}:
        raise ValueError(f"family must be 4 or 6: {family!r}")
    return f"{family or ''}:{','.join(types or ())}"


_NO_NODES = Counts(members=0, ready=0, suspect=0, draining=0, excluded=0)


def check_weight(value: float) -> float:
    """Return a valid weight unchanged. Raises ValueError."""
    if not MIN_WEIGHT <= value <= MAX_WEIGHT:
        raise ValueError(f"weight must be from {MIN_WEIGHT} to {MAX_WEIGHT:g}: {value!r}")
    return value


def to_milliseconds(seconds: float) -> int:
    """Convert seconds, 0 or more, to milliseconds. Raises ValueError."""
    if not (seconds >= 0 and math.isfinite(seconds)):
        raise ValueError(f"seconds must be 0 or more: {seconds!r}")
    return round(seconds * 1000)


def ttl_milliseconds(seconds: float) -> int:
    """Convert the duration of a reservation or of a load report to milliseconds. Raises ValueError."""
    if not 0.001 <= seconds <= MAX_SECONDS:  # noqa: PLR2004 - one millisecond.
        raise ValueError(
            f"duration of a reservation or of a load report must be from 0.001 to {MAX_SECONDS} seconds: {seconds!r}"
        )
    return round(seconds * 1000)


def report_arguments(loads: Mapping[str, float], source: str, seconds: float) -> list[CommandArgs]:
    """Return the arguments of `report` for each call. Several calls, because each blocks Redis. Raises ValueError."""
    if not source:
        raise ValueError("a load report needs a source")
    ttl = ttl_milliseconds(seconds)
    pairs: Sequence[tuple[str, float]] = [(node, check_weight(load) if load else 0) for node, load in loads.items()]
    parts = [pairs[first : first + _NODES_PER_REPORT] for first in range(0, len(pairs), _NODES_PER_REPORT)] or [[]]
    return [(source, ttl, *(word for pair in part for word in pair)) for part in parts]
