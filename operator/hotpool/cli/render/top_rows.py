"""Rows of `top` for nodes and pools, computed from a snapshot of the fleet."""

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from hotpool.api.slice import MemberState
from hotpool.cli.fleet_reader import FleetSnapshot
from hotpool.cli.leader import Leader
from hotpool.common.durations import seconds_since
from hotpool.core.model import Pool
from hotpool.kube.decode import decode_lease

if TYPE_CHECKING:
    from hotpool.lookup import Ejection

MINUTE: Final = 60.0
WORST: Final = "worst"
"""The default order: what needs a look first."""
OFFERED_STATES: Final = frozenset({"Suspect", "NodeNotReady", "NodeUnreachable", "Draining", "Cordoned"})
"""States of a node that stays in its pools, and is offered last or no new work."""
_GOOD_STATES: Final = frozenset({"Live"})
_FLAPPING: Final = "Flapping"

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class NodeRow:
    """Row of one node."""

    name: str
    last_seen: str | None
    """renewTime of the Lease, by the clock of the node."""
    silent: float | None
    """Seconds since then, by the local clock."""
    state: str
    """Reason of condition Ready: Live, Suspect, Offline, Draining, ..."""
    pools: int
    running: int
    services: int
    restarts: int
    """Restarts after crashes since the agent started."""
    flapping: tuple[str, ...]
    """Types that are not ready because their services flap."""
    ejected: tuple[str, ...] | None = None
    """Services that dispatchers pick last, `-` for the node itself; None without Redis."""


@dataclass(frozen=True, slots=True)
class PoolRow:
    """Row of one pool."""

    name: str
    members: Counter[MemberState]
    minimum: int
    note: str
    """Reason why the pool is not Ready, or why its members do not follow the spec; empty if there is none."""
    ready: bool
    """True if condition Ready is True."""
    changes: int
    """Changes of members in the last minute: with --watch the observed ones, else new members."""
    ejected: int | None = None
    """Services of Ready members that dispatchers pick last; None without Redis."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Sorted rows of both tables, None for one that is not shown, and the warning if no operator leads."""

    nodes: list[NodeRow] | None
    pools: list[PoolRow] | None
    warning: str = ""


def node_rows(
    snapshot: FleetSnapshot,
    leases: Iterable[Json],
    now: datetime,
    ejections: "Sequence[Ejection] | None" = None,
) -> list[NodeRow]:
    """Return the rows of all nodes, sorted by name. `ejections`: None without Redis."""
    renewals = dict(_renewed(lease) for lease in leases)
    pools = Counter(node for pool in snapshot.pools_with_slices for node in snapshot.members(pool))
    rows = [_node_row(snapshot, name, renewals.get(name), pools[name], now) for name in sorted(snapshot.nodes)]
    if ejections is None:
        return rows
    ejected: dict[str, list[str]] = defaultdict(list)
    for item in ejections:
        ejected[item.node].append(item.service or "-")
    return [replace(row, ejected=tuple(sorted(ejected[row.name]))) for row in rows]


def _renewed(lease: Json) -> tuple[str, str | None]:
    spec = lease.get("spec") or {}
    renewal = decode_lease(lease["metadata"]["name"], spec.get("holderIdentity"), spec.get("renewTime"), None)
    return (renewal.node, renewal.renewed) if renewal else ("", None)


def _node_row(snapshot: FleetSnapshot, name: str, renewed: str | None, pools: int, now: datetime) -> NodeRow:
    node, services = snapshot.nodes[name], snapshot.services(name)
    ready = node.conditions.get("Ready")
    types = node.report.types if node.report else {}
    return NodeRow(
        name=name,
        last_seen=renewed,
        silent=seconds_since(renewed, now),
        state=ready.reason if ready else "Unseen",
        pools=pools,
        running=sum(service.state == "Running" for service in services),
        services=len(services),
        restarts=sum(service.restarts for service in services),
        flapping=tuple(sorted(type_ for type_, state in types.items() if state.reason == _FLAPPING)),
    )


def pool_rows(
    snapshot: FleetSnapshot, changes: Mapping[str, int], ejections: "Sequence[Ejection] | None" = None
) -> list[PoolRow]:
    """Return the rows of all pools, sorted by name."""
    return [
        PoolRow(
            name=name,
            members=Counter(member.state for member in snapshot.members(name).values()),
            minimum=pool.spec.min_members,
            note=_note(pool),
            ready=pool.status.ready == "True",
            changes=changes.get(name, 0),
            ejected=None if ejections is None else _ejected(snapshot, name, ejections),
        )
        for name, pool in sorted(snapshot.pools.items())
    ]


def _note(pool: Pool) -> str:
    """Return the reasons that a person on call needs, the gravest first."""
    if pool.problem:
        return "InvalidSpec"
    conditions = {item.type: item for item in pool.status.conditions}
    ready, silence = conditions.get("Ready"), conditions.get("MassSilence")
    reasons = (
        "MassSilence" if silence and silence.status == "True" else "",
        "Paused" if pool.paused else "PauseIgnored" if pool.pause_problem else "",
        "DryRun" if pool.spec.mode == "DryRun" else ready.reason if ready and ready.status != "True" else "",
    )
    return ", ".join(filter(None, reasons)) if conditions or pool.paused else _unobserved(pool)


def _unobserved(pool: Pool) -> str:
    return "DryRun" if pool.spec.mode == "DryRun" else "NotObserved"


def _ejected(snapshot: FleetSnapshot, pool: str, ejections: "Sequence[Ejection]") -> int:
    """Count the ejected services of a pool's required types on its Ready members."""
    members = snapshot.members(pool)
    types = {requirement.type for requirement in snapshot.pools[pool].spec.requires.types}
    return sum(
        item.node in members and members[item.node].state == "Ready" and (item.type is None or item.type in types)
        for item in ejections
    )


def arrivals(snapshot: FleetSnapshot, now: datetime) -> dict[str, int]:
    """Return the number of members that joined in the last minute, by pool."""
    ages = {
        pool: [seconds_since(member.since, now) for member in snapshot.members(pool).values()]
        for pool in snapshot.pools
    }
    return {pool: sum(age is not None and age < MINUTE for age in each) for pool, each in ages.items()}


@dataclass(slots=True)
class Rates:
    """Counter of changes of membership between snapshots: members that joined, left or changed their state."""

    leader: Leader | None = None
    """The leader at the last snapshot."""
    _before: dict[str, dict[str, MemberState]] | None = None
    _counts: deque[tuple[float, Counter[str]]] = field(default_factory=deque)

    def update(self, snapshot: FleetSnapshot, now: float) -> Counter[str]:
        """Return changes by pool in the last minute, or since the first snapshot. `now`: monotonic seconds."""
        after = {
            pool: {node: member.state for node, member in snapshot.members(pool).items()}
            for pool in (*snapshot.pools, *snapshot.pools_with_slices)
        }
        before, self._before = self._before, after
        if before is not None:
            pools = before.keys() | after.keys()
            self._counts.append((now, Counter({p: _changes(before.get(p, {}), after.get(p, {})) for p in pools})))
        while self._counts and self._counts[0][0] <= now - MINUTE:
            self._counts.popleft()
        return sum((count for _, count in self._counts), Counter[str]())


def _changes(before: Mapping[str, MemberState], after: Mapping[str, MemberState]) -> int:
    return len({node for node, _ in before.items() ^ after.items()})


def _badness(row: NodeRow) -> int:
    """Return how much a node needs a look: 3 for one that is out of its pools, 0 for one that works."""
    if row.state in _GOOD_STATES:
        return 1 if row.flapping or row.ejected else 0
    return 2 if row.state in OFFERED_STATES else 3


NODE_ORDERS: Final[Mapping[str, Callable[[NodeRow], Any]]] = {
    WORST: lambda row: (-_badness(row), -(float("inf") if row.silent is None else row.silent), row.name),
    "name": lambda row: row.name,
    "last-seen": lambda row: (-(float("inf") if row.silent is None else row.silent), row.name),
    "pools": lambda row: (-row.pools, row.name),
    "services": lambda row: (-row.running, row.name),
    "flaps": lambda row: (-len(row.flapping), -row.restarts, row.name),
}
"""Sort orders of nodes: by name, else highest first. A node that is out of its pools is worst."""
POOL_ORDERS: Final[Mapping[str, Callable[[PoolRow], Any]]] = {
    WORST: lambda row: (row.ready or row.note == "DryRun", not row.note, -row.changes, row.name),
    "name": lambda row: row.name,
    "members": lambda row: (-row.members.total(), row.name),
    "ready": lambda row: (-row.members["Ready"], row.name),
    "changes": lambda row: (-row.changes, row.name),
}
"""Sort orders of pools: by name, else highest first. A pool that is not Ready is worst."""
