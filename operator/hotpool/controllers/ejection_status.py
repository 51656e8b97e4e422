"""Metric and Events about ejected services (requirement E8). Ejections change no membership."""

from collections import defaultdict
from collections.abc import Collection, Mapping

from hotpool.controllers.pool_gauge import PoolGauge
from hotpool.core.cluster_cache import ClusterCache
from hotpool.events.recorder import EventRecorder
from hotpool.observability.metrics import EJECTED_SERVICES
from hotpool.projection.documents import PoolDocument
from hotpool.projection.failures import Ejection


class EjectionStatus:
    """Ejections as of the last reading."""

    def __init__(self, cache: ClusterCache, recorder: EventRecorder) -> None:
        self._cache = cache
        self._recorder = recorder
        self._known: frozenset[tuple[str, str | None]] = frozenset()
        self._numbers = PoolGauge(EJECTED_SERVICES)

    def update(self, ejections: Collection[Ejection], pools: Mapping[str, PoolDocument]) -> None:
        """Count the ejected services of each pool, and record an Event of each pool about new ones."""
        self._numbers.update(ejected_services(ejections, pools) if ejections else {}, pools)
        by_pool: dict[str, list[Ejection]] = defaultdict(list)
        for ejection in ejections:
            if (ejection.node, ejection.service) not in self._known:
                by_pool[ejection.pool].append(ejection)
        self._known = frozenset((ejection.node, ejection.service) for ejection in ejections)
        for name, new in by_pool.items():
            if membership := self._cache.pools.get(name):
                sources = {source for ejection in new for source in ejection.sources}
                self._recorder.services_ejected(membership.pool.meta, map(_name, new), len(sources))


def ejected_services(ejections: Collection[Ejection], pools: Mapping[str, PoolDocument]) -> dict[str, int]:
    """Return the number of ejected services of the Ready members by pool, without pools that have none."""
    counts = {
        name: sum(item.node in pool.ready and _meets(item, pool) for item in ejections) for name, pool in pools.items()
    }
    return {name: count for name, count in counts.items() if count}


def _meets(ejection: Ejection, pool: PoolDocument) -> bool:
    """Return True if picks of the pool answer the service."""
    services, node = pool.services, ejection.node
    if ejection.service is None:
        return True
    allowed = services.exceptions.get(node)
    return ejection.type in services.types and (allowed is None or ejection.service in allowed.split(","))


def _name(ejection: Ejection) -> str:
    return f"{ejection.node}/{ejection.service}" if ejection.service else ejection.node
