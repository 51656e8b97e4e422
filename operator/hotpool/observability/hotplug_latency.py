"""Hot-plug latency by stage (requirement F4): from an agent's report to Redis and to the slice. A leaf.

The reconciler says what a watch brought, the phases what became of it. Bookkeeping only: times are given, memory is
bounded, and nothing here may change what is done. One change is one node in one pool; what a first listing, an audit or
a restart brings is not measured, nor is what no report caused (silence, a drain).
Stages across machines (report, total_…) need two clocks that agree: they count only when not negative.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from hotpool.core.model import Member, Slice
from hotpool.observability.metrics import HOTPLUG, HOTPLUG_UNKNOWN

MAX_TRACKED: Final = 20_000
"""Changes under way; more are not measured."""

GAIN: Final = "gain"
WITHDRAWAL: Final = "withdrawal"


@dataclass(frozen=True, slots=True)
class _Seen:
    at: float
    age: float | None
    """Seconds from the agent's stamp until it was seen; None: not known."""


@dataclass(frozen=True, slots=True)
class _Planned:
    seen: _Seen
    at: float
    direction: str
    state: str | None
    """The member's state that was planned; None: it is out."""


@dataclass(slots=True)
class _Pool:
    """The changes of one pool that are under way, by node."""

    seen: dict[str, _Seen] = field(default_factory=dict)
    redis: dict[str, _Planned] = field(default_factory=dict)
    slices: dict[str, _Planned] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.seen) + len(self.redis) + len(self.slices)


class HotplugLatency:
    """The changes under way."""

    def __init__(self) -> None:
        self._pools: defaultdict[str, _Pool] = defaultdict(_Pool)

    @property
    def in_progress(self) -> int:
        """How many times are kept."""
        return sum(map(len, self._pools.values()))

    def clear(self) -> None:
        """We lead from now on: what was seen as a standby was another's to do."""
        self._pools.clear()

    def forget(self, pool: str) -> None:
        """The pool is gone."""
        self._pools.pop(pool, None)

    def reported(self, node: str, pools: Iterable[str], stamp: str, now: float, unix: float) -> None:
        """A watch brought a new report that changed the node's verdict in these pools. `stamp`: the agent's time."""
        pools = list(pools)
        if not pools:
            return
        if self.in_progress + len(pools) > MAX_TRACKED:
            HOTPLUG_UNKNOWN.labels("plan").inc(len(pools))
            return
        seen = _Seen(now, _age(stamp, unix))
        for pool in pools:
            self._pools[pool].seen[node] = seen

    def planned(
        self, pool: str, applied: Mapping[str, Slice], planned: Mapping[str, tuple[Member, ...]], now: float
    ) -> None:
        """A plan was made: the slices as they are, and their members as they shall be."""
        known = self._pools.get(pool)
        if not known:
            return
        changes = _changes(applied, planned, known.seen.keys() | known.slices.keys())
        for node, late in list(known.slices.items()):
            if node in known.seen:
                del known.slices[node]  # another report came before this change was stored
            elif node not in changes or changes[node][1] != late.state:
                del known.slices[node]  # stored by a write that had no answer, or taken back by something else
                HOTPLUG_UNKNOWN.labels("slice").inc()
        for node, seen in known.seen.items():
            if node in changes:
                before, after = changes[node]
                change = _Planned(seen, now, _direction(before, after), after)
                known.redis[node] = known.slices[node] = change
                _observe("report", change.direction, seen.age)
                _observe("plan", change.direction, now - seen.at)
        known.seen.clear()

    def published(self, pool: str, now: float, *, accepted: bool | None) -> None:
        """What was planned was sent to Redis. `accepted`: None where there is no Redis, False where it was away."""
        known = self._pools.get(pool)
        if not known:
            return
        for change in known.redis.values():
            if accepted:
                _arrived("redis", change, now)
            elif accepted is False:
                HOTPLUG_UNKNOWN.labels("redis").inc()
        known.redis.clear()
        self._tidy(pool, known)

    def stored(self, pool: str, now: float) -> None:
        """All slices of the pool are as planned."""
        known = self._pools.get(pool)
        if not known:
            return
        for change in known.slices.values():
            _arrived("slice", change, now)
        known.slices.clear()
        self._tidy(pool, known)

    def _tidy(self, pool: str, known: _Pool) -> None:
        if not len(known):
            del self._pools[pool]


def _age(stamp: str, unix: float) -> float | None:
    try:
        said = datetime.fromisoformat(stamp)
        return unix - said.timestamp() if said.tzinfo else None
    except (ValueError, OverflowError):
        return None


def _changes(
    applied: Mapping[str, Slice], planned: Mapping[str, tuple[Member, ...]], nodes: AbstractSet[str]
) -> dict[str, tuple[str | None, str | None]]:
    """Of these nodes, those whose state changes: before and after (None: out). Slices that stay cost nothing."""
    old, new = dict[str, str](), dict[str, str]()
    for name in applied.keys() | planned.keys():
        is_, shall_be = applied[name].members if name in applied else (), planned.get(name, ())
        if is_ is not shall_be and is_ != shall_be:
            old |= {member.node: member.state for member in is_ if member.node in nodes}
            new |= {member.node: member.state for member in shall_be if member.node in nodes}
    return {node: (old.get(node), new.get(node)) for node in old.keys() | new.keys() if old.get(node) != new.get(node)}


def _direction(before: str | None, after: str | None) -> str:
    worse = after is None or (before == "Ready" and after != "Ready")
    return WITHDRAWAL if worse else GAIN


def _arrived(stage: str, change: _Planned, now: float) -> None:
    age = change.seen.age
    _observe(stage, change.direction, now - change.at)
    _observe(f"total_{stage}", change.direction, None if age is None or age < 0 else age + now - change.seen.at)


def _observe(stage: str, direction: str, seconds: float | None) -> None:
    if seconds is None or seconds < 0:
        HOTPLUG_UNKNOWN.labels(stage).inc()
    else:
        HOTPLUG.labels(stage, direction).observe(seconds)
