"""What a look-up answers, and how it is read from the replies of the server-side functions.

Pure: it must not do I/O.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from hotpool.projection.connection.config import to_text

NONE = "-"
"""Where a node would be, in an answer without one."""


class Reason(StrEnum):
    """Why there is no node."""

    POOL_UNKNOWN = "PoolUnknown"
    EMPTY = "Empty"
    ALL_EXCLUDED = "AllExcluded"
    ONLY_DRAINING = "OnlyDraining"
    STALE = "Stale"


@dataclass(frozen=True, slots=True)
class Reservation:
    """A node's load that is counted until `expires`: Unix time in seconds, by the clock of Redis."""

    id: str
    node: str
    expires: float


@dataclass(frozen=True, slots=True)
class Picked:
    """A node to use. `state` is Ready or Suspect; `version` is the pool's.

    `age_seconds`: since the operator last vouched for the projection, None when it never did; it does so each 5 s.
    `complete`: False while the projection is being rebuilt. `reservation`: None unless asked for.
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
    """Members of a pool by state; `excluded`: how many Ready and Suspect ones the caller ruled out."""

    members: int
    ready: int
    suspect: int
    draining: int
    excluded: int


@dataclass(frozen=True, slots=True)
class NoMember:
    """No node to use, with the reason. `pool` is `generator/key` when no pool is known for these."""

    pool: str
    reason: Reason
    counts: Counts
    age_seconds: float | None
    complete: bool


@dataclass(frozen=True, slots=True)
class Members:
    """All members of a pool, by state, each sorted by name; `version` is None for an unknown pool."""

    version: int | None
    ready: tuple[str, ...]
    suspect: tuple[str, ...]
    draining: tuple[str, ...]
    age_seconds: float | None
    complete: bool


@dataclass(frozen=True, slots=True)
class TypeState:
    """One type on one node: ready, or the reason why not, and the ids of its ready services."""

    ready: bool
    reason: str | None
    services: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Capability:
    """What a node can do, by type: an absent type is not ready."""

    node: str
    types: dict[str, TypeState]
    age_seconds: float | None
    complete: bool


def parse_freshness(age: int, complete: object) -> tuple[float | None, bool]:
    """Return age in seconds (None when never vouched for) and completeness from how a reply begins."""
    return (age / 1000 if age >= 0 else None), to_text(complete) == "1"


def parse_type_state(value: str) -> TypeState:
    """Return one type from the JSON in a node's hash. Raises ValueError, KeyError or TypeError for anything else."""
    parsed = json.loads(value)
    return TypeState(bool(parsed["ready"]), parsed["reason"], tuple(parsed["services"]))


def parse_pick(pool: str, reply: Any, reservation: str | None = None) -> Picked | NoMember:
    """Return the answer to a pick in this pool from the function's reply; `reservation`: the id that was asked for."""
    node, word, version, age, complete, *rest = to_text(reply).split(" ")
    seconds = int(age) / 1000 if age != "-1" else None
    if node == NONE:
        ready, suspect, draining, excluded = map(int, rest)
        counts = Counts(ready + suspect + draining, ready, suspect, draining, excluded)
        return NoMember(pool, Reason(word), counts, seconds, complete == "1")
    reserved = None
    if reservation:
        reserved = Reservation(reservation, node, int(rest.pop()) / 1000)
    if rest:
        raise ValueError(f"no answer to a pick: {reply!r}")
    return Picked(node, word, pool, int(version), seconds, complete == "1", reserved)
