"""Prometheus counter whose value is read from a function at each scrape."""

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector


class FunctionCounter(Collector):
    """Counter `<name>_total` of another part's own count."""

    def __init__(self, name: str, documentation: str, value: Callable[[], float], registry: CollectorRegistry) -> None:
        self._name = name
        self._documentation = documentation
        self._value = value
        registry.register(self)

    def collect(self) -> Iterable[Metric]:
        """Return the counter with the present value."""
        return [CounterMetricFamily(self._name, self._documentation, value=self._value())]
