"""Use of pools (requirement E9): slots in use and in total, by pool and type, and refused reservations.

Pure: must not import redis or do I/O.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from hotpool.projection.connection.config import to_text
from hotpool.projection.documents import PoolDocument


@dataclass(frozen=True, slots=True)
class Use:
    """Use of a fleet as of one reading."""

    slots: Mapping[str, Mapping[str, int]] | None = field(default_factory=dict)
    """Node → service → slots in use. None: the operator may not read them."""
    refused: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """Pool and reason → reservations that were refused since the previous reading."""


def parse_refused(prefix: str, flat: Sequence[Any]) -> dict[tuple[str, str], int]:
    """Parse the numbers of refused reservations. `prefix`: of the key of a pool's facts."""
    numbers: dict[tuple[str, str], int] = {}
    for words, number in zip(flat[::2], flat[1::2], strict=True):
        reason, _, key = to_text(words).partition(" ")
        numbers[key.removeprefix(prefix), reason] = int(number)
    return numbers


def parse_slots(flat: Sequence[str]) -> dict[str, dict[str, int]]:
    """Parse the hash of slots in use. Fields that no function wrote are left out."""
    slots: dict[str, dict[str, int]] = defaultdict(dict)
    for name, number in zip(flat[::2], flat[1::2], strict=True):
        node, _, service = name.partition(" ")
        if service and number.isascii() and number.isdigit():
            slots[node][service] = int(number)
    return slots


class NodeSlots(NamedTuple):
    """Services of a node with a type: each with its limit (None: none), and the limit of all together."""

    services: Mapping[str, int | None]
    type_limit: int | None

    def total(self, services: Iterable[str]) -> int | None:
        """Return the slots that these services have together, None without a limit."""
        limits = [self.services[service] for service in services if service in self.services]
        total = None if None in limits else sum(limit for limit in limits if limit is not None)
        if self.type_limit is not None and (total is None or self.type_limit < total):
            return self.type_limit
        return total


def node_slots(endpoints: str) -> dict[str, NodeSlots]:
    """Return type → services with limits, of the endpoints of a node (documents.encode_endpoints)."""
    services: dict[str, dict[str, int | None]] = defaultdict(dict)
    limits: dict[str, int] = {}
    for word in endpoints.split():
        match word.split("|"):
            case [kind, limit]:
                limits[kind] = int(limit)
            case [kind, service, _, _, _, limit]:
                services[kind][service] = int(limit)
            case [kind, service, *_]:
                services[kind][service] = None
    return {kind: NodeSlots(found, limits.get(kind)) for kind, found in services.items()}


class FleetSlots:
    """Slots of all nodes, by type. Kept between readings, because parsing all nodes is most of the cost."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}
        self._nodes: dict[str, dict[str, NodeSlots]] = defaultdict(dict)
        """Type → node → its services."""
        self._totals: dict[str, dict[str, int]] = defaultdict(dict)
        """Type → node with a limit → slots of all its services of the type."""
        self._of_pools: dict[tuple[str, str], tuple[PoolDocument, int | None]] = {}
        """Pool and type → document and total since the last change of a node."""

    def update(self, name: str, endpoints: str) -> None:
        """Store the endpoints of a node; empty: it has none."""
        known = self._texts.get(name, "")
        if known == endpoints:
            return
        self._of_pools.clear()
        for kind in node_slots(known):
            self._nodes[kind].pop(name, None)
            self._totals[kind].pop(name, None)
        if endpoints:
            self._texts[name] = endpoints
        else:
            del self._texts[name]
        for kind, found in node_slots(endpoints).items():
            self._nodes[kind][name] = found
            total = found.total(found.services)
            if total is not None:
                self._totals[kind][name] = total

    def keep(self, names: Iterable[str]) -> None:
        """Forget all other nodes."""
        for name in self._texts.keys() - set(names):
            self.update(name, "")

    def in_use(self, slots: Mapping[str, Mapping[str, int]], kind: str) -> "TypeInUse":
        """Return the slots in use of one type, without those of services that a node no longer has."""
        nodes = self._nodes[kind]
        return TypeInUse(
            {
                name: {service: number for service, number in of_node.items() if service in nodes[name].services}
                for name, of_node in slots.items()
                if name in nodes
            }
        )

    def total(self, pool: PoolDocument, kind: str) -> int | None:
        """Return the slots of the members that picks may answer, Ready and Suspect ones; None without a limit."""
        known = self._of_pools.get((pool.name, kind))
        if known is None or known[0] is not pool:
            known = self._of_pools[pool.name, kind] = pool, self._compute_total(pool, kind)
        return known[1]

    def _compute_total(self, pool: PoolDocument, kind: str) -> int | None:
        totals, nodes, exceptions = self._totals[kind], self._nodes[kind], pool.services.exceptions
        number = 0
        for members in (pool.ready, pool.suspect):
            try:
                number += sum(map(totals.__getitem__, members - exceptions.keys() if exceptions else members))
            except KeyError:  # a member has no limit
                return None
        for name, services in exceptions.items():
            if (name in pool.ready or name in pool.suspect) and name in nodes:
                total = nodes[name].total(services.split(","))
                if total is None:
                    return None
                number += total
        return number


class TypeInUse:
    """Slots in use of one type. `nodes`: node → service → slots."""

    def __init__(self, nodes: Mapping[str, Mapping[str, int]]) -> None:
        self._nodes = nodes
        self._sums = {name: sum(services.values()) for name, services in nodes.items()}
        self._names = frozenset(self._sums)

    def of_pool(self, pool: PoolDocument) -> int:
        """Return the slots in use on Ready and Suspect members, of the services that meet the pool."""
        exceptions, number = pool.services.exceptions, 0
        for members in (pool.ready, pool.suspect):
            used = members & self._names
            number += sum(map(self._sums.__getitem__, used - exceptions.keys() if exceptions else used))
        for name, services in exceptions.items():
            if name in self._names and (name in pool.ready or name in pool.suspect):
                number += sum(self._nodes[name].get(service, 0) for service in services.split(","))
        return number
