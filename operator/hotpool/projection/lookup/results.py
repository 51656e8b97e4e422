"""Result types of a look-up, and parsers for the replies of the Redis functions.

Pure: must not do I/O.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from hotpool.projection.connection.config import to_text

NO_NODE = "-"
"""Replaces the node in a reply without a node."""


class Reason(StrEnum):
    """Reason for a pick without a node."""

    POOL_UNKNOWN = "PoolUnknown"
    EMPTY = "Empty"
    ALL_EXCLUDED = "AllExcluded"
    ONLY_DRAINING = "OnlyDraining"
    STALE = "Stale"


@dataclass(frozen=True, slots=True)
class Reservation:
    """A load of a node that is counted until `expires`: Unix time in seconds, by the clock of Redis."""

    id: str
    node: str
    expires: float


@dataclass(frozen=True, slots=True)
class Picked:
    """The picked node. `state`: Ready or Suspect. `version`: version of the pool.

    `age_seconds`: time since the operator's last stamp, normally every 5 s; None if there was none. `complete`: False
    while the projection is being rebuilt. `reservation`: None unless the option `reserve` was given.
    """

    node: str
    state: str
    pool: str
    version: int
    age_seconds: float | None
    complete: bool
    reservation: Reservation | None = None


@dataclass(frozen=True, slots=True)
class Counts:
    """Members of a pool by state. `excluded`: number of Ready and Suspect members in the option `exclude`."""

    members: int
    ready: int
    suspect: int
    draining: int
    excluded: int


@dataclass(frozen=True, slots=True)
class NoMember:
    """A pick without a node, with the reason. `pool` is `generator/key` if the index has no pool for them."""

    pool: str
    reason: Reason
    counts: Counts
    age_seconds: float | None
    complete: bool


@dataclass(frozen=True, slots=True)
class Members:
    """All members of a pool by state, sorted by name. `version` is None for an unknown pool."""

    version: int | None
    ready: tuple[str, ...]
    suspect: tuple[str, ...]
    draining: tuple[str, ...]
    age_seconds: float | None
    complete: bool


@dataclass(frozen=True, slots=True)
class TypeState:
    """State of one type on one node: ready, or the reason if not, and the ids of its ready services."""

    ready: bool
    reason: str | None
    services: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Capability:
    """Capability of a node by type. An absent type is not ready."""

    node: str
    types: dict[str, TypeState]
    age_seconds: float | None
    complete: bool


def parse_freshness(age: int, complete: object) -> tuple[float | None, bool]:
    """Parse the beginning of a reply. Return the age in seconds (None without a stamp) and the completeness."""
    return (age / 1000 if age >= 0 else None), to_text(complete) == "1"


def parse_type_state(value: str) -> TypeState:
    """Parse the JSON of one type in a node's hash. Raises ValueError, KeyError or TypeError for invalid input."""
    parsed = json.loads(value)
    return TypeState(bool(parsed["ready"]), parsed["reason"], tuple(parsed["services"]))


def parse_pick(pool: str, reply: Any, reservation: str | None = None) -> Picked | NoMember:
    """Parse the reply to a pick in this pool. `reservation`: id of the requested reservation. Raises ValueError."""
    node, word, version, age, complete, *rest = to_text(reply).split(" ")
    seconds = int(age) / 1000 if age != "-1" else None
    if node == NO_NODE:
        ready, suspect, draining, excluded = map(int, rest)
        counts = Counts(ready + suspect + draining, ready, suspect, draining, excluded)
        return NoMember(pool, Reason(word), counts, seconds, complete == "1")
    reserved = None
    if reservation:
        reserved = Reservation(reservation, node, int(rest.pop()) / 1000)
    if rest:
        raise ValueError(f"invalid reply to a pick: {reply!r}")
    return Picked(node, word, pool, int(version), seconds, complete == "1", reserved)
