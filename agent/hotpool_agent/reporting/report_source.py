"""Source of the present report content: the last resort when it cannot be built (requirement A12)."""

from typing import Final, Protocol

import structlog

from hotpool.api.capability import Report
from hotpool_agent.kube.errors import internal_error
from hotpool_agent.metrics import Metrics
from hotpool_agent.reporting.report_builder import ReportContent, minimal

_LOG: Final = structlog.get_logger(__name__)


class ReportedServices(Protocol):
    """The services of a report."""

    leaving: bool

    def content(self) -> ReportContent:
        """Build the current report."""


class ReportSource:
    """Builds contents. One that cannot be built becomes the minimal report, reason ReportFailed."""

    def __init__(self, services: ReportedServices, blank: Report, metrics: Metrics) -> None:
        self.problem: str | None = None
        """Reason why the last content is the minimal report."""
        self.dropped_items: tuple[str, ...] = ()
        """A line for people about each place with items that the last content leaves out."""
        self._services = services
        self._metrics = metrics
        self._last = blank
        """The last whole report. Its types are those of a minimal one."""

    def read(self) -> ReportContent:
        """Return the present content. Never raises."""
        try:
            content = self._services.content()
        except Exception as error:  # noqa: BLE001 - whatever it is, the node must not stay silent
            return self._minimal(error)
        if self.problem is not None:
            _LOG.info("report can be built again")
        self.problem, self._last = None, content.report
        self._note_dropped(content)
        return content

    def _minimal(self, error: Exception) -> ReportContent:
        problem = f"the report cannot be built: {internal_error(error)}; reporting no type as ready"
        if problem != self.problem:
            _LOG.error("report cannot be built; reporting no type as ready", exc_info=error)
        self.problem = problem
        return minimal(self._last.model_copy(update={"leaving": self._services.leaving}), "ReportFailed")

    def _note_dropped(self, content: ReportContent) -> None:
        self._metrics.set_dropped(content.report.dropped)
        for item in content.dropped_items:
            if item not in self.dropped_items:
                _LOG.warning("item left out of the report", item=item)
        self.dropped_items = content.dropped_items
