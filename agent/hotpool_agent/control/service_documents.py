"""Services in the response to `status`: the fields of the report, and why one is not offered. Pure."""

from collections.abc import Iterable, Sequence
from typing import Any, Final

from hotpool_agent.catalogue.model import Catalogue
from hotpool_agent.reporting.report_builder import not_ready_reason
from hotpool_agent.reporting.report_limits import DropCounter, bounded_services, fitting
from hotpool_agent.services.status import ServiceStatus
from hotpool_agent.untrusted_text import readable

_OUTPUT_MAX: Final = 1024


def service_documents(
    statuses: Sequence[ServiceStatus], catalogue: Catalogue, node_reason: str | None, identifier: str | None
) -> list[dict[str, Any]]:
    """Return the documents of all services, or of one.

    `node_reason`: the reason why the node's services are not offered, even if they run.
    """
    _, without_room = fitting(statuses)
    return [
        document
        for status in statuses
        if identifier in {None, status.spec.id}
        for document in _documents(status, _not_offered(status, catalogue, without_room) or node_reason)
    ]


def _documents(status: ServiceStatus, reason: str | None) -> Iterable[dict[str, Any]]:
    dropped = DropCounter()
    for service in bounded_services([status], dropped)[0]:
        yield service.model_dump(mode="json", by_alias=True) | {
            "notOffered": reason,
            "dropped": dropped.count,
            "lastOutput": [readable(line, _OUTPUT_MAX) for line in status.last_output],
        }


def _not_offered(status: ServiceStatus, catalogue: Catalogue, without_room: Sequence[str]) -> str | None:
    """Return the reason why the service is not offered, in the words of the report where it has one."""
    if status.state != "Running":
        return status.state
    return not_ready_reason(catalogue, status) or ("NoRoom" if status.pod in without_room else None)
