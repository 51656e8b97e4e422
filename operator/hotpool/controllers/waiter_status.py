"""Metric of waiting picks by pool (requirement E10)."""

from collections.abc import Collection, Mapping

from hotpool.observability.metrics import WAITERS


class WaiterStatus:
    """Waiting picks as of the last reading."""

    def __init__(self) -> None:
        self._shown: set[str] = set()
        """Pools that have a series of the metric."""

    def update(self, waiters: Mapping[str, int], pools: Collection[str]) -> None:
        """Show the numbers of those that exist. `waiters`: by pool; the names come from dispatchers."""
        for name in self._shown - set(pools):
            WAITERS.remove(name)
        self._shown &= set(pools)
        self._shown |= waiters.keys() & set(pools)
        for name in self._shown:
            WAITERS.labels(name).set(waiters.get(name, 0))
