"""A metric with a series for each pool that has had a number since the operator leads."""

from collections.abc import Collection, Mapping

from prometheus_client import Gauge


class PoolGauge:
    """Series of one metric by pool."""

    def __init__(self, gauge: Gauge) -> None:
        self._gauge = gauge
        self._shown: set[str] = set()
        """Pools that have a series."""

    def update(self, numbers: Mapping[str, int], pools: Collection[str]) -> None:
        """Show the numbers of the pools that exist, 0 for one without. `numbers`: by pool, also of other names."""
        existing = set(pools)
        for name in self._shown - existing:
            self._gauge.remove(name)
        self._shown = (self._shown | numbers.keys()) & existing
        for name in self._shown:
            self._gauge.labels(name).set(numbers.get(name, 0))
