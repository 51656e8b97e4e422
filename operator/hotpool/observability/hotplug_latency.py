"""Hot-plug latency by stage (requirement F4): from an agent's report to Redis and to the slice.

Bookkeeping only: times are arguments, memory is bounded, and nothing here may change what is done. One change is one
node in one pool. Changes from a first listing, a resync or a restart are not measured, nor those without a report
(silence, a drain). Stages across machines (report, total_…) need two clocks that agree: only non-negative times count.
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
"""Changes in progress; more are not measured."""

GAIN: Final = "gain"
WITHDRAWAL: Final = "withdrawal"


@dataclass(frozen=True, slots=True)
class _Seen:
    at: float
    age: float | None
    """Seconds from the time in the report until it was received; None: unknown."""


@dataclass(frozen=True, slots=True)
class _Planned:
    seen: _Seen
    at: float
    direction: str
    state: str | None
    """Planned state of the member; None: removed."""


@dataclass(slots=True)
class _Pool:
    """Changes in progress of one pool, by node."""

    seen: dict[str, _Seen] = field(default_factory=dict)
    redis: dict[str, _Planned] = field(default_factory=dict)
    slices: dict[str, _Planned] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.seen) + len(self.redis) + len(self.slices)


class HotplugLatency:
    """Recorder of the changes in progress."""

    def __init__(self) -> None:
        self._pools: defaultdict[str, _Pool] = defaultdict(_Pool)

    @property
    def in_progress(self) -> int:
        """Number of times in memory."""
        return sum(map(len, self._pools.values()))

    def clear(self) -> None:
        """Drop all changes at the start of leadership: the former leader was to apply those received as a standby."""
        self._pools.clear()

    def forget(self, pool: str) -> None:
        """Drop a deleted pool."""
        self._pools.pop(pool, None)

    def reported(self, node: str, pools: Iterable[str], stamp: str, now: float, unix: float) -> None:
        """Record a new report from a watch that affects these pools. `stamp`: RFC 3339 time of the report."""
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
        """Record the time at which changes were planned. `applied`: slices as stored; `planned`: members by slice."""
        tracked = self._pools.get(pool)
        if not tracked:
            return
        changes = _changes(applied, planned, tracked.seen.keys() | tracked.slices.keys())
        for node, planned_change in list(tracked.slices.items()):
            if node in tracked.seen:
                del tracked.slices[node]  # another report arrived before this change was stored
            elif node not in changes or changes[node][1] != planned_change.state:
                del tracked.slices[node]  # stored by a write without a response, or reverted
                HOTPLUG_UNKNOWN.labels("slice").inc()
        for node, seen in tracked.seen.items():
            if node in changes:
                before, after = changes[node]
                change = _Planned(seen, now, _direction(before, after), after)
                tracked.redis[node] = tracked.slices[node] = change
                _observe("report", change.direction, seen.age)
                _observe("plan", change.direction, now - seen.at)
        tracked.seen.clear()

    def published(self, pool: str, now: float, *, accepted: bool | None) -> None:
        """Record the write of the plan to Redis. `accepted`: None without Redis, False if the write failed."""
        tracked = self._pools.get(pool)
        if not tracked:
            return
        for change in tracked.redis.values():
            if accepted:
                _observe_arrival("redis", change, now)
            elif accepted is False:
                HOTPLUG_UNKNOWN.labels("redis").inc()
        tracked.redis.clear()
        self._drop_if_empty(pool, tracked)

    def stored(self, pool: str, now: float) -> None:
        """Record that all slices of the pool are stored as planned."""
        tracked = self._pools.get(pool)
        if not tracked:
            return
        for change in tracked.slices.values():
            _observe_arrival("slice", change, now)
        tracked.slices.clear()
        self._drop_if_empty(pool, tracked)

    def _drop_if_empty(self, pool: str, tracked: _Pool) -> None:
        if not len(tracked):
            del self._pools[pool]


def _age(stamp: str, unix: float) -> float | None:
    try:
        reported = datetime.fromisoformat(stamp)
        return unix - reported.timestamp() if reported.tzinfo else None
    except (ValueError, OverflowError):
        return None


def _changes(
    applied: Mapping[str, Slice], planned: Mapping[str, tuple[Member, ...]], nodes: AbstractSet[str]
) -> dict[str, tuple[str | None, str | None]]:
    """Return node → state before and after (None: not a member) if they differ. Unchanged slices cost nothing."""
    old, new = dict[str, str](), dict[str, str]()
    for name in applied.keys() | planned.keys():
        current, desired = applied[name].members if name in applied else (), planned.get(name, ())
        if current is not desired and current != desired:
            old |= {member.node: member.state for member in current if member.node in nodes}
            new |= {member.node: member.state for member in desired if member.node in nodes}
    return {node: (old.get(node), new.get(node)) for node in old.keys() | new.keys() if old.get(node) != new.get(node)}


def _direction(before: str | None, after: str | None) -> str:
    worse = after is None or (before == "Ready" and after != "Ready")
    return WITHDRAWAL if worse else GAIN


def _observe_arrival(stage: str, change: _Planned, now: float) -> None:
    age = change.seen.age
    _observe(stage, change.direction, now - change.at)
    _observe(f"total_{stage}", change.direction, None if age is None or age < 0 else age + now - change.seen.at)


def _observe(stage: str, direction: str, seconds: float | None) -> None:
    if seconds is None or seconds < 0:
        HOTPLUG_UNKNOWN.labels(stage).inc()
    else:
        HOTPLUG.labels(stage, direction).observe(seconds)
