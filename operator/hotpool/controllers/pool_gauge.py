"""Metrics whose series come and go: one with a series for each pool that has had a number, and one of any labels."""

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


class GaugeSeries:
    """Series of one metric: those that were given last, and no others."""

    def __init__(self, gauge: Gauge) -> None:
        self._gauge = gauge
        self._shown: dict[tuple[str, ...], float] = {}
        """Values of the label → number of each series."""

    def update(self, numbers: Mapping[tuple[str, ...], float]) -> None:
        """Show these numbers, by the values of the labels, and remove all other series."""
        for labels in self._shown.keys() - numbers.keys():
            self._gauge.remove(*labels)
        for labels, number in numbers.items():
            if self._shown.get(labels) != number:
                self._gauge.labels(*labels).set(number)
        self._shown = dict(numbers)
