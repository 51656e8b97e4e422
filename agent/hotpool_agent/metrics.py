"""Prometheus metrics of the agent: hotpool_agent_…, and process_… of its process.

One instance per agent, no global state. Must not know how reports and heartbeats are sent.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Info, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from hotpool.api.capability import ServiceState
from hotpool.common.function_counter import FunctionCounter
from hotpool.common.lossy_stream import lost_lines
from hotpool_agent import __version__

if TYPE_CHECKING:
    from hotpool_agent.services.status import ServiceStatus

ACCEPTED: Final = "accepted"
_NO_PODS: Final[Mapping[str, Callable[[], bool]]] = MappingProxyType({})
Statuses = Callable[[], Iterable["ServiceStatus"]]


class Metrics:
    """Metrics of one agent, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._reports = Counter(
            "hotpool_agent_reports", "Reports sent to the API server, by result", ["result"], registry=self.registry
        )
        self._heartbeats = Counter(
            "hotpool_agent_heartbeats", "Lease renewals sent, by result", ["result"], registry=self.registry
        )
        self._bytes = Gauge("hotpool_agent_report_bytes", "Size of the report sent last", registry=self.registry)
        self._last_accepted = Gauge(
            "hotpool_agent_last_accepted_timestamp_seconds",
            "When the API server accepted a report last; 0: not yet",
            registry=self.registry,
        )
        self._connected = Gauge(
            "hotpool_agent_connected", "1 while the API server takes reports and heartbeats", registry=self.registry
        )
        FunctionCounter(
            "hotpool_agent_log_lines_lost", "Log lines that could not be written", lost_lines, self.registry
        )
        self._dropped = Gauge(
            "hotpool_agent_dropped_items", "Invalid items that the present report leaves out", registry=self.registry
        )
        Info("hotpool_agent_build", "Version of the agent", registry=self.registry).info({"version": __version__})
        for counter in (self._reports, self._heartbeats):
            counter.labels(ACCEPTED)

    def expose(
        self,
        statuses: Statuses,
        connected: Callable[[], bool],
        pods: Mapping[str, Callable[[], bool]] = _NO_PODS,
        gpus: Callable[[], bool] = lambda: True,
    ) -> None:
        """Register the functions that return current values. Call it once.

        `pods`: namespace → function that returns True while its pods are watched. `gpus`: True if they could be read.
        """
        self._connected.set_function(lambda: float(connected()))
        self.registry.register(_ServiceCollector(statuses))
        readable = Gauge("hotpool_agent_gpus_readable", "0 while GPUs cannot be read", registry=self.registry)
        readable.set_function(lambda: float(gpus()))
        watched = Gauge(
            "hotpool_agent_pods_watched",
            "1 while pods of the namespace are watched; while 0, their services keep the last known state",
            # Not `namespace`, which Prometheus sets to the agent's own.
            ["pod_namespace"],
            registry=self.registry,
        )
        for namespace, is_watched in pods.items():
            watched.labels(namespace).set_function(is_watched)

    @contextmanager
    def report(self, size: int) -> Iterator[None]:
        """Count a report of `size` bytes that the block sends."""
        self._bytes.set(size)
        with _counted(self._reports):
            yield
        self._last_accepted.set_to_current_time()

    def set_dropped(self, count: int) -> None:
        """Set the number of items that the present report leaves out."""
        self._dropped.set(count)

    def heartbeat(self) -> AbstractContextManager[None]:
        """Count a heartbeat that the block sends."""
        return _counted(self._heartbeats)


@contextmanager
def _counted(counter: Counter) -> Iterator[None]:
    """Count the block as accepted, or by the exception that it raises: UnavailableError is `unavailable`."""
    try:
        yield
    except Exception as error:
        counter.labels(type(error).__name__.removesuffix("Error").lower()).inc()
        raise
    counter.labels(ACCEPTED).inc()


class _ServiceCollector(Collector):
    """Metrics of the services at each scrape. A removed service leaves no series behind."""

    def __init__(self, statuses: Statuses) -> None:
        self._statuses = statuses

    def describe(self) -> Iterable[Metric]:
        return self._families()

    def collect(self) -> Iterable[Metric]:
        states, restarts = self._families()
        statuses = list(self._statuses())
        for state in get_args(ServiceState):
            states.add_metric([state], sum(status.state == state for status in statuses))
        for status in statuses:
            restarts.add_metric([status.spec.id], status.restarts)
        return states, restarts

    @staticmethod
    def _families() -> tuple[GaugeMetricFamily, CounterMetricFamily]:
        return (
            GaugeMetricFamily("hotpool_agent_services", "Services of the node, by state", labels=["state"]),
            CounterMetricFamily(
                "hotpool_agent_service_restarts",
                "Restarts after crashes since the service is in the catalogue",
                labels=["service"],
            ),
        )
