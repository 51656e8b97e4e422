"""Metrics of what people run: pools, generators, nodes and services (requirement F8).

Only a leader has them. They are computed from the cache every 15 s, so that a heartbeat costs nothing, and a scrape
only prints numbers.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from hotpool.api.meta import Condition
from hotpool.clock import Clock
from hotpool.controllers.pool_gauge import GaugeSeries
from hotpool.core.address_problems import ADDRESS_CONFLICT, ADDRESS_NOT_ALLOWED
from hotpool.core.cluster_cache import ClusterCache
from hotpool.core.model import Liveness, NodeView, Pool
from hotpool.core.planning import generator_plan, pool_plan
from hotpool.observability import metrics

UPDATE_SECONDS: Final = 15.0
"""Time between two updates."""
MAX_SHOWN: Final = 500
"""Pools that have series, and generators that have: those with a problem before the others, then by name."""
Numbers = dict[tuple[str, ...], float]
"""Values of the labels → number."""


class _Named(NamedTuple):
    """A pool or generator, in the order in which they are shown."""

    healthy: bool
    name: str


class FleetMetrics:
    """Metrics of one fleet."""

    def __init__(self, cache: ClusterCache, clock: Clock, *, by_name: bool = True) -> None:
        """`by_name`: False leaves out the metrics of single pools and generators."""
        self._cache = cache
        self._clock = clock
        self._by_name = by_name
        self._members = GaugeSeries(metrics.POOL_MEMBERS)
        self._min_members = GaugeSeries(metrics.POOL_MIN_MEMBERS)
        self._ready = GaugeSeries(metrics.POOL_READY)
        self._conditions = GaugeSeries(metrics.POOL_CONDITION)
        self._generator_conditions = GaugeSeries(metrics.GENERATOR_CONDITION)
        self._not_admitted = GaugeSeries(metrics.GENERATOR_NOT_ADMITTED)
        self._not_shown = GaugeSeries(metrics.NOT_SHOWN)
        self._node_states = GaugeSeries(metrics.NODE_STATES)
        self._node_problems = GaugeSeries(metrics.NODE_PROBLEMS)
        self._services = GaugeSeries(metrics.FAILING_SERVICES)

    async def run(self) -> None:
        """Update the metrics until cancelled, and remove their series then: only a leader shows them."""
        try:
            while True:
                await self.update()
                await asyncio.sleep(UPDATE_SECONDS)
        finally:
            for part in vars(self).values():
                if isinstance(part, GaugeSeries):
                    part.update({})

    async def update(self) -> None:
        """Show the present state of the cache, in bounded steps."""
        await self._show_nodes()
        if self._by_name:
            left_out: Numbers = {("pool",): await self._show_pools(), ("generator",): await self._show_generators()}
            self._not_shown.update(left_out)

    async def _show_nodes(self) -> None:
        states, problems, services = Counter[str](), Counter[str](), Counter[str]()
        for tracker in list(self._cache.nodes.values()):
            await self._clock.pace()
            states[pool_plan.node_ready(tracker.view).reason] += 1
            problems.update(_node_problems(tracker.view))
            services.update(_failing_services(tracker.view))
        for series, counts in (
            (self._node_states, states),
            (self._node_problems, problems),
            (self._services, services),
        ):
            series.update({(label,): count for label, count in counts.items()})

    async def _show_pools(self) -> int:
        """Show the pools. Return the number of those that are not shown."""
        members, minimum, ready, conditions = Numbers(), Numbers(), Numbers(), Numbers()
        found: list[_Named] = []
        for name, membership in list(self._cache.pools.items()):
            await self._clock.pace()
            found.append(_Named(_is_healthy(membership.pool), name))
        shown = sorted(found)[:MAX_SHOWN]
        for name in [item.name for item in shown]:
            await self._clock.pace()
            if (known := self._cache.pools.get(name)) is None:
                continue
            status, spec = known.pool.status, known.pool.spec
            members[name, "Ready"] = status.ready_members or 0
            members[name, "Suspect"] = status.suspect_members or 0
            members[name, "Draining"] = status.draining_members or 0
            minimum[(name,)] = spec.min_members
            if spec.mode != "DryRun":
                ready[(name,)] = status.ready == "True"
            conditions |= {(name, kind): 1 for kind in _true(status.conditions, pool_plan.CONDITION_TYPES)}
        self._members.update(members)
        self._min_members.update(minimum)
        self._ready.update(ready)
        self._conditions.update(conditions)
        return len(found) - len(shown)

    async def _show_generators(self) -> int:
        """Show the generators. Return the number of those that are not shown."""
        not_admitted, conditions = Numbers(), Numbers()
        found = sorted(
            _Named(not _true(entry.generator.status.conditions, generator_plan.CONDITION_TYPES), name)
            for name, entry in self._cache.generators.items()
        )
        shown = found[:MAX_SHOWN]
        for name in [item.name for item in shown]:
            await self._clock.pace()
            if (entry := self._cache.generators.get(name)) is None:
                continue
            status = entry.generator.status
            not_admitted[(name,)] = status.not_admitted_count or 0
            conditions |= {(name, kind): 1 for kind in _true(status.conditions, generator_plan.CONDITION_TYPES)}
        self._not_admitted.update(not_admitted)
        self._generator_conditions.update(conditions)
        return len(found) - len(shown)


def _is_healthy(pool: Pool) -> bool:
    """Return True if no alert about the pool is due."""
    ready = pool.status.ready == "True" or pool.spec.mode == "DryRun"
    return ready and not _true(pool.status.conditions, pool_plan.CONDITION_TYPES)


def _true(conditions: Sequence[Condition], types: Iterable[str]) -> list[str]:
    """Return the types of the conditions that are True, except Ready, without those of other clients."""
    return [item.type for item in conditions if item.status == "True" and item.type != "Ready" and item.type in types]


def _node_problems(view: NodeView) -> set[str]:
    """Return the conditions of a node that people must act on."""
    found = {ADDRESS_NOT_ALLOWED if item.rival is None else ADDRESS_CONFLICT for item in view.address_problems}
    return found | ({"CommandIgnored"} if view.node.ignored_commands else set())


def _failing_services(view: NodeView) -> list[str]:
    """Return Failed or Flapping for each service that is. The report of a silent or leaving node is no evidence."""
    report = view.node.report
    if report is None or not report.troubles or report.leaving or view.liveness is Liveness.OFFLINE:
        return []
    flapping = {type_ for type_, state in report.types.items() if state.reason == "Flapping"}
    return [
        "Failed" if item.state == "Failed" else "Flapping"
        for item in report.troubles
        if item.state == "Failed" or item.type in flapping
    ]
