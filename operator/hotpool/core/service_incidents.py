"""Failures, flapping and refused commands of a node's services, from the difference of two states of it (F8). Pure."""

from collections import deque
from collections.abc import Iterator
from typing import Final, Literal, NamedTuple

from hotpool.core.model import Node, Report
from hotpool.core.service_troubles import ServiceTrouble

_MAX_WAITING: Final = 10_000

IncidentReason = Literal["ServiceFailed", "ServiceFlapping", "CommandRefused"]
INCIDENT_LINES: Final[dict[IncidentReason, str]] = {
    "ServiceFailed": "service failed",
    "ServiceFlapping": "service flapping",
    "CommandRefused": "command refused",
}
"""Reason → event of its line in the operator's log, which `hotpool events --log` reads."""


class ServiceIncident(NamedTuple):
    """One incident, as an Event and a log line state it."""

    reason: IncidentReason
    node: str
    service: str
    """Id of the service; of ServiceFlapping the services that keep their type from being ready."""
    type: str | None
    message: str
    restarts: int = 0
    since: str | None = None
    """Time at which the service failed, by the node's clock."""


class IncidentQueue:
    """Incidents that are not recorded yet. Of more than 10,000 the oldest are dropped."""

    def __init__(self) -> None:
        self._waiting: deque[ServiceIncident] = deque(maxlen=_MAX_WAITING)

    def compare(self, before: Node, after: Node) -> None:
        """Add what happened to the services of one node between two of its states."""
        self._waiting.extend(incidents(before, after))

    def take(self) -> list[ServiceIncident]:
        """Return the incidents since the last call, the oldest first."""
        found = list(self._waiting)
        self._waiting.clear()
        return found


def incidents(before: Node, after: Node) -> Iterator[ServiceIncident]:
    """Yield what happened to the services of one node between two of its states."""
    name = after.meta.name
    if after.report is not None and after.report is not before.report:
        for trouble in after.report.troubles:
            if _failed(before.report, trouble):
                yield _failure(name, trouble)
        yield from _flapping(name, before.report, after.report)
    for refused in after.refused:
        if refused not in before.refused:
            message = f"{refused.desired}: {refused.why}"
            yield ServiceIncident("CommandRefused", name, refused.service, None, message)


def _failure(node: str, now: ServiceTrouble) -> ServiceIncident:
    return ServiceIncident("ServiceFailed", node, now.service, now.type, now.error, now.restarts, now.since)


def _failed(before: Report | None, now: ServiceTrouble) -> bool:
    """Return True if a service failed since a report. Its error may get more detail later, which is no failure.

    Restarts alone count only if the service was known before: a pod may have restarts when it becomes a service.
    """
    known = next((item for item in before.troubles if item.service == now.service), None) if before else None
    failed_before = known is not None and known.state == "Failed"
    if now.state == "Failed":
        return not (failed_before and known and known.since == now.since)
    if known:
        return not failed_before and now.restarts > known.restarts
    return before is not None and any(item.service == now.service for item in before.offers.get(now.type, ()))


def _flapping(node: str, before: Report | None, after: Report) -> Iterator[ServiceIncident]:
    for type_, state in after.types.items():
        known = before.types.get(type_) if before else None
        if state.reason == "Flapping" and (known is None or known.reason != "Flapping"):
            services = ", ".join(item.service for item in after.troubles if item.type == type_)
            message = "failed too often: offered again when it has run for a while"
            yield ServiceIncident("ServiceFlapping", node, services or type_, type_, message)
