"""Metrics of the use of pools (requirement E9)."""

from collections.abc import Collection, Mapping

from prometheus_client import Gauge

from hotpool.clock import Clock
from hotpool.observability.metrics import POOL_SLOTS, POOL_SLOTS_IN_USE, REFUSED_RESERVATIONS
from hotpool.projection.documents import NodeDocument, PoolDocument
from hotpool.projection.use import FleetSlots, TypeInUse, Use


class UseStatus:
    """Use of all pools as of the last reading."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._slots = FleetSlots()
        self._in_use: set[tuple[str, str]] = set()
        self._totals: set[tuple[str, str]] = set()
        """Pool and type that have a series of each metric."""
        self._refused: set[tuple[str, str]] = set()

    async def update(self, use: Use, pools: Mapping[str, PoolDocument], nodes: Mapping[str, NodeDocument]) -> None:
        """Show the use of each pool. Without a reading of slots no pool has a series of them."""
        pools = dict(pools)
        in_use: dict[tuple[str, str], int] = {}
        totals: dict[tuple[str, str], int] = {}
        if use.slots is not None:
            await self._read_nodes(nodes)
            by_type: dict[str, TypeInUse] = {}
            for name, kind in [(name, kind) for name, pool in pools.items() for kind in pool.services.types]:
                await self._clock.pace()
                used = by_type.get(kind) or by_type.setdefault(kind, self._slots.in_use(use.slots, kind))
                total, number, shown = self._slots.total(pools[name], kind), used.of_pool(pools[name]), (name, kind)
                if total or (total == 0 and shown in self._totals):
                    totals[shown] = total
                if total or number or shown in self._in_use:
                    in_use[shown] = number
        self._in_use = _show(POOL_SLOTS_IN_USE, self._in_use, in_use)
        self._totals = _show(POOL_SLOTS, self._totals, totals)
        self._count_refused({(name, "Full"): 0 for name, _ in in_use} | dict(use.refused), pools)

    async def _read_nodes(self, nodes: Mapping[str, NodeDocument]) -> None:
        self._slots.keep(nodes)
        for name, document in list(nodes.items()):
            await self._clock.pace()
            self._slots.update(name, document.endpoints)

    def _count_refused(self, numbers: Mapping[tuple[str, str], int], pools: Collection[str]) -> None:
        """Count refused reservations by pool and reason. A number of 0 begins a series."""
        for labels in [labels for labels in self._refused if labels[0] not in pools]:
            REFUSED_RESERVATIONS.remove(*labels)
            self._refused.discard(labels)
        for labels, number in numbers.items():
            if labels[0] in pools:
                REFUSED_RESERVATIONS.labels(*labels).inc(number)
                self._refused.add(labels)


def _show(gauge: Gauge, shown: set[tuple[str, str]], values: Mapping[tuple[str, str], int]) -> set[tuple[str, str]]:
    """Set the series of a gauge, and remove the other ones that are shown. Return the labels of all series."""
    for labels in shown - values.keys():
        gauge.remove(*labels)
    for labels, value in values.items():
        gauge.labels(*labels).set(value)
    return set(values)
