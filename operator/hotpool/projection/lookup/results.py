"""Result types of a look-up, and parsers for the replies of the Redis functions.

Pure: must not do I/O.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import Any, Literal

from hotpool.projection.connection.config import to_text

NO_NODE = "-"
"""Replaces the node in a reply without a node."""
TRIAL_DUE = "trial"
"""Last word of a reply to `pick` if `pick_trial` would choose an ejected node now."""


_WORDS_BEFORE_SERVICES = 5
_BARS = 4


class Reason(StrEnum):
    """Reason for a pick without a node."""

    FLEET_UNKNOWN = "FleetUnknown"
    """No operator has written to the keys of this prefix and namespace, or someone deleted them."""
    POOL_UNKNOWN = "PoolUnknown"
    EMPTY = "Empty"
    ALL_EXCLUDED = "AllExcluded"
    ONLY_DRAINING = "OnlyDraining"
    NO_ENDPOINT = "NoEndpoint"
    FULL = "Full"
    STALE = "Stale"


WITHOUT_POOL = frozenset({Reason.FLEET_UNKNOWN, Reason.POOL_UNKNOWN})
"""Reasons for a pick from a pool that is not in Redis."""


class ReportEffect(StrEnum):
    """Effect of a report about the services of a picked node."""

    EJECTED = "Ejected"
    """A service is now picked after all others, for every dispatcher."""
    COUNTED = "Counted"
    """The report was counted."""
    CUT_OFF = "CutOff"
    """Not counted: this source found most of a pool to fail and reached no node meanwhile. A success ends this."""
    DOUBTED = "Doubted"
    """Not counted: another source reached on trial what this source alone had ejected, within the last five minutes."""
    FULL = "Full"
    """Not counted: 1,000 services are ejected."""
    OUTDATED = "Outdated"
    """Not counted: the service has stopped, or has another port or address since the pick."""
    DENIED = "Denied"
    """Not counted: the ACL of Redis denies this user the rights of failure reports."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Address of a service of the picked node. `service`: its id on the node. `app_protocol`: as of a Service port."""

    address: str
    port: int
    app_protocol: str | None
    service: str

    @property
    def authority(self) -> str:
        """`10.0.3.7:6007`, or `[fd00::7]:6007` for IPv6."""
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


@dataclass(frozen=True, slots=True)
class Reservation:
    """A load of a node that is counted until `expires`: Unix time in seconds, by the clock of Redis.

    `pool`, `endpoints`: as in Picked. `services`: type → service of which it holds a slot. `weight`: as given.
    """

    id: str
    node: str
    expires: float
    pool: str = ""
    endpoints: Mapping[str, tuple[Endpoint, ...]] = field(default_factory=dict, hash=False, repr=False)
    services: Mapping[str, str] = field(default_factory=dict, hash=False)
    weight: float = 1


@dataclass(frozen=True, slots=True)
class Picked:
    """The picked node. `version`: version of the pool.

    `state`: Ready, Suspect, Ejected (Ready, but dispatchers report failures and no other Ready member is left) or Trial
    (ejected, and tried again).

    `endpoints`: type → services of the node that meet the pool, the picked one first; without the types that have none.
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
    endpoints: Mapping[str, tuple[Endpoint, ...]] = field(default_factory=dict, hash=False)

    def __bool__(self) -> Literal[True]:
        return True

    def url(self, type: str, scheme: str = "http", path: str = "") -> str:  # noqa: A002 - the word of the API.
        """Return the URL of the picked service of a type, such as `ws://10.0.3.7:6007/stream`.

        Raises LookupError if the node has no endpoint of the type. The option `types` picks only nodes that have one.
        """
        services = self.endpoints.get(type)
        if not services:
            raise LookupError(f"node {self.node} has no endpoint of type {type}: pick with types=[{type!r}]")
        return f"{scheme}://{services[0].authority}{'' if path.startswith('/') or not path else '/'}{path}"


@dataclass(frozen=True, slots=True)
class Counts:
    """Members of a pool by state. `excluded`: number of Ready and Suspect members in the option `exclude`.

    `no_endpoint`: number of the others that were looked at, at most 1,064 of each state, and lack an endpoint that the
    pick asked for. Of the reason Full: `full`: number of those without room that were looked at, `in_use` and `total`:
    their slots of the type without room.
    """

    members: int
    ready: int
    suspect: int
    draining: int
    excluded: int
    no_endpoint: int = 0
    full: int = 0
    in_use: int = 0
    total: int = 0


@dataclass(frozen=True, slots=True)
class NoMember:
    """A pick without a node, false in a condition. `pool` is `generator/key` if the index has no pool for them.

    `retry_after`: of the reason Full, seconds until the next reservation of the fleet expires, at least 0.1. One may be
    released earlier.

    `candidates`: of a pick from several pools, the result of each in order. The other fields are those of the first
    one, and `retry_after` is the smallest.

    `wait_denied`: True if the pick did not wait as asked, because the ACL of Redis lacks a right that the log names.
    """

    pool: str
    reason: Reason
    counts: Counts
    age_seconds: float | None
    complete: bool
    retry_after: float | None = None
    candidates: tuple["NoMember", ...] = ()
    wait_denied: bool = False

    def __bool__(self) -> Literal[False]:
        return False


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


def parse_pick(
    pool: str, reply: Any, reservation: str | None = None, *, weight: float = 1, slots: bool = True
) -> Picked | NoMember:
    """Parse the reply to a pick in this pool. Raises ValueError.

    `reservation`, `weight`: id and weight of the requested reservation. `slots`: True if it takes slots of services.
    """
    node, word, version, age, complete, *rest = to_text(reply).split(" ", _WORDS_BEFORE_SERVICES)
    text = rest[0] if rest else ""
    seconds = int(age) / 1000 if age != "-1" else None
    if node == NO_NODE:
        ready, suspect, draining, excluded, no_endpoint, *full = map(int, text.split(" "))
        counts = Counts(ready + suspect + draining, ready, suspect, draining, excluded, no_endpoint, *full[:3])
        retry_after = full[3] / 1000 if full else None
        return NoMember(pool, Reason(word), counts, seconds, complete == "1", retry_after)
    expiry, _, services = text.partition(" ") if reservation else ("", "", text)
    parsed, first = _parse_services(services)
    endpoints, reserved = parsed.copy(), None
    if reservation:
        taken = first.copy() if slots else {}
        reserved = Reservation(reservation, node, int(expiry) / 1000, pool, endpoints, taken, weight)
    return Picked(node, word, pool, int(version), seconds, complete == "1", reserved, endpoints)


def has_limit(reply: str | bytes, words_before: int = _WORDS_BEFORE_SERVICES) -> bool:
    """Return True if a service of a picked node has a limit. `words_before`: number of words before the services.

    Such a service has five bars, another one four, and no other word has any.
    """
    bar, blank = ("|", " ") if isinstance(reply, str) else (b"|", b" ")
    services = reply.count(blank) + 1 - words_before  # type: ignore[arg-type]
    return reply.count(bar) > _BARS * services  # type: ignore[arg-type]


@lru_cache(maxsize=4096)
def _parse_services(text: str) -> tuple[dict[str, tuple[Endpoint, ...]], dict[str, str]]:
    """Parse the services of a node: `type|service|port|appProtocol|address,...` of each. The first address counts.

    Return type → endpoints, and type → id of the first service. A service without an endpoint, which a node with a
    limit lists, has no port and no address. Cached, because nodes recur. Raises ValueError.
    """
    endpoints: dict[str, tuple[Endpoint, ...]] = {}
    first: dict[str, str] = {}
    words = text.split(" ")
    if words[-1] in {"", TRIAL_DUE}:
        words.pop()
    for word in words:
        kind, service, port, protocol, addresses, *_ = word.split("|")
        first.setdefault(kind, service)
        if port and addresses:
            endpoint = Endpoint(addresses.partition(",")[0], int(port), protocol or None, service)
            endpoints[kind] = (*endpoints.get(kind, ()), endpoint)
    return endpoints, first
