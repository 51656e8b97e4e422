"""What `top` shows of each node and pool, made from what was read.

Decides nothing; `Rates` remembers what was seen before, to count changes while watching.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from hotpool.api.slice import MemberState
from hotpool.cli.fleet_reader import FleetSnapshot
from hotpool.common.durations import seconds_since
from hotpool.kube.decode import decode_lease

MINUTE: Final = 60.0
_FLAPPING: Final = "Flapping"

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class NodeRow:
    """One node."""

    name: str
    last_seen: str | None
    """The Lease's renewTime, by the node's own clock."""
    silent: float | None
    """Seconds since then, by ours."""
    state: str
    """The reason of condition Ready: Live, Suspect, Offline, Draining, ..."""
    pools: int
    running: int
    services: int
    restarts: int
    """After crashes, since the agent started."""
    flapping: tuple[str, ...]
    """Types that are not ready because their services flap."""


@dataclass(frozen=True, slots=True)
class PoolRow:
    """One pool."""

    name: str
    members: Counter[MemberState]
    minimum: int
    note: str
    """Why its members do not follow its spec, where that is so."""
    changes: int
    """Members that changed in the last minute: while watching all that was seen, else those that came in."""


def node_rows(found: FleetSnapshot, leases: Iterable[Json], now: datetime) -> list[NodeRow]:
    """All nodes, by name."""
    seen = dict(_renewed(lease) for lease in leases)
    pools = Counter(node for pool in found.pools_with_slices for node in found.members(pool))
    return [_node_row(found, name, seen.get(name), pools[name], now) for name in sorted(found.nodes)]


def _renewed(lease: Json) -> tuple[str, str | None]:
    spec = lease.get("spec") or {}
    beat = decode_lease(lease["metadata"]["name"], spec.get("holderIdentity"), spec.get("renewTime"), None)
    return (beat.node, beat.renewed) if beat else ("", None)


def _node_row(found: FleetSnapshot, name: str, renewed: str | None, pools: int, now: datetime) -> NodeRow:
    node, services = found.nodes[name], found.services(name)
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


def pool_rows(found: FleetSnapshot, changes: Mapping[str, int]) -> list[PoolRow]:
    """All pools, by name."""
    return [
        PoolRow(
            name=name,
            members=Counter(member.state for member in found.members(name).values()),
            minimum=pool.spec.min_members,
            note="InvalidSpec"
            if pool.problem
            else "Paused"
            if pool.paused
            else "DryRun" * (pool.spec.mode == "DryRun"),
            changes=changes.get(name, 0),
        )
        for name, pool in sorted(found.pools.items())
    ]


def arrivals(found: FleetSnapshot, now: datetime) -> dict[str, int]:
    """Members that came in during the last minute, by pool: what one look can tell."""
    ages = {pool: [seconds_since(member.since, now) for member in found.members(pool).values()] for pool in found.pools}
    return {pool: sum(age is not None and age < MINUTE for age in each) for pool, each in ages.items()}


@dataclass(slots=True)
class Rates:
    """Counts changes of membership between looks: who came, went, or changed state."""

    _before: dict[str, dict[str, MemberState]] | None = None
    _seen: deque[tuple[float, Counter[str]]] = field(default_factory=deque)

    def update(self, found: FleetSnapshot, moment: float) -> Counter[str]:
        """Changes by pool in the last minute, or since the first look. `moment`: monotonic seconds."""
        after = {
            pool: {node: member.state for node, member in found.members(pool).items()}
            for pool in (*found.pools, *found.pools_with_slices)
        }
        before, self._before = self._before, after
        if before is not None:
            pools = before.keys() | after.keys()
            self._seen.append((moment, Counter({p: _moved(before.get(p, {}), after.get(p, {})) for p in pools})))
        while self._seen and self._seen[0][0] <= moment - MINUTE:
            self._seen.popleft()
        return sum((count for _, count in self._seen), Counter[str]())


def _moved(before: Mapping[str, MemberState], after: Mapping[str, MemberState]) -> int:
    return len({node for node, _ in before.items() ^ after.items()})


NODE_ORDERS: Final[Mapping[str, Callable[[NodeRow], Any]]] = {
    "name": lambda row: row.name,
    "last-seen": lambda row: (-(float("inf") if row.silent is None else row.silent), row.name),
    "pools": lambda row: (-row.pools, row.name),
    "services": lambda row: (-row.running, row.name),
    "flaps": lambda row: (-len(row.flapping), -row.restarts, row.name),
}
"""What nodes can be sorted by: the name, else the most first."""
POOL_ORDERS: Final[Mapping[str, Callable[[PoolRow], Any]]] = {
    "name": lambda row: row.name,
    "members": lambda row: (-row.members.total(), row.name),
    "ready": lambda row: (-row.members["Ready"], row.name),
    "changes": lambda row: (-row.changes, row.name),
}
"""What pools can be sorted by."""
