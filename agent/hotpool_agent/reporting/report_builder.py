"""Content of a report, from the catalogue and the states of services (requirements B1, B2, B3, B5, B11): pure.

Builds and compares contents. Must not know when or how they are sent.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any, Final

from hotpool.api.capability import (
    MAX_TYPES,
    REPORT_SCHEMA_VERSION,
    Hardware,
    NotReadyReason,
    Platform,
    Report,
    Service,
    ServiceState,
    TypeCapability,
)
from hotpool_agent.catalogue.model import Catalogue, device_accepted
from hotpool_agent.reporting.report_limits import DropCounter, bounded_services, fitting, truncate
from hotpool_agent.services.status import ServiceStatus

PRECEDENCE: Final[tuple[NotReadyReason, ...]] = (
    "DeviceNotAccepted",
    "Failed",
    "Flapping",
    "Starting",
    "Stopped",
    "NotInstalled",
)
_REASONS: Final[dict[ServiceState, NotReadyReason]] = {
    "Failed": "Failed",
    "Starting": "Starting",
    "Stopping": "Stopped",
    "Stopped": "Stopped",
}
_STAMPS: Final = {"time", "epoch", "sequence", "session"}


@dataclass(frozen=True, slots=True)
class AgentInfo:
    """Facts that do not change while the agent runs. `interval` is H in seconds."""

    agent_version: str
    instance: str
    session: str
    interval: int
    platform: Platform
    hardware: Hardware


class Change(IntEnum):
    """Kind of a change between two reports, in ascending strength (requirement B6)."""

    NONE = 0
    NEUTRAL = 1
    GAIN = 2
    WITHDRAWAL = 3


@dataclass(frozen=True, slots=True)
class ReportContent:
    """A report without stamps, its digest, and the node's capabilities as comparable tuples."""

    report: Report
    digest: str
    capabilities: frozenset[tuple[str, ...]]
    dropped: tuple[str, ...] = ()
    """Pods, as NAMESPACE/NAME, that do not fit into the report. `report.dropped` includes their number."""

    def offers(self, service: str) -> bool:
        """Return True if the service counts for a type in this report."""
        return any(service in capability.services for capability in self.report.capabilities)


def build(
    catalogue: Catalogue,
    statuses: Sequence[ServiceStatus],
    info: AgentInfo,
    *,
    leaving: bool,
    draining: bool = False,
    refused: int = 0,
) -> ReportContent:
    """Return the report of these states. It counts invalid items as dropped, and cut texts and lists as truncated.

    `refused`: the number of invalid pods. They have no status, and count as dropped, too.
    """
    dropped = DropCounter()
    statuses, left_out = fitting(statuses)
    services = bounded_services(statuses, dropped)
    capabilities = _capabilities(catalogue, statuses)
    running = sum(status.state == "Running" for status in statuses)
    report = Report(
        schema_version=REPORT_SCHEMA_VERSION,
        agent_version=info.agent_version,
        instance=info.instance,
        session=info.session,
        epoch=0,
        sequence=0,
        time="",
        leaving=leaving,
        draining=draining,
        interval_seconds=info.interval,
        summary=f"{running}/{len(statuses)}",
        platform=info.platform,
        hardware=info.hardware,
        services=services,
        capabilities=capabilities[:MAX_TYPES],
        dropped=dropped.count + len(left_out) + refused + max(0, len(capabilities) - MAX_TYPES),
    )
    return replace(with_digest(truncate(report)), dropped=tuple(left_out))


def minimal(whole: Report) -> ReportContent:
    """Return the report in which no type is ready, sent after the API server rejected a report (requirement B11)."""
    unready = tuple(
        TypeCapability(type=capability.type, ready=False, reason="ReportRejected") for capability in whole.capabilities
    )
    return with_digest(
        whole.model_copy(update={"services": (), "capabilities": unready, "platform": None, "hardware": None})
    )


def with_digest(report: Report) -> ReportContent:
    """Return the report with its digest and capability tuples."""
    unstamped = {key: value for key, value in to_json(report).items() if key not in _STAMPS}
    digest = hashlib.sha256(json.dumps(unstamped, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    return ReportContent(report, digest, frozenset(_capability_tuples(report)))


def classify(before: ReportContent | None, now: ReportContent) -> Change:
    """Return the kind of change from `before`, the report sent last. A mixed change is a withdrawal."""
    if before is None:
        return Change.WITHDRAWAL
    if before.digest == now.digest:
        return Change.NONE
    if before.capabilities - now.capabilities:
        return Change.WITHDRAWAL
    return Change.GAIN if now.capabilities - before.capabilities else Change.NEUTRAL


def stamped(content: ReportContent, epoch: int, sequence: int, time: str) -> dict[str, Any]:
    """Return the JSON form with its stamps. Absent values are null, because a merge patch must replace every key."""
    return to_json(content.report) | {"epoch": epoch, "sequence": sequence, "time": time}


def to_json(report: Report) -> dict[str, Any]:
    """Return the JSON form of a report, with every key."""
    return report.model_dump(mode="json", by_alias=True)


def _capabilities(catalogue: Catalogue, statuses: Sequence[ServiceStatus]) -> tuple[TypeCapability, ...]:
    types = sorted({*catalogue.types, *(status.spec.type for status in statuses)})
    return tuple(
        _capability(catalogue, type_, [status for status in statuses if status.spec.type == type_]) for type_ in types
    )


def _capability(catalogue: Catalogue, type_: str, statuses: Sequence[ServiceStatus]) -> TypeCapability:
    reasons_by_id = {status.spec.id: _not_ready_reason(catalogue, status) for status in statuses}
    ready = tuple(identifier for identifier, reason in reasons_by_id.items() if reason is None)
    if ready:
        return TypeCapability(type=type_, ready=True, services=ready)
    reasons = {reason for reason in reasons_by_id.values() if reason} or {"NotInstalled"}
    return TypeCapability(type=type_, ready=False, reason=min(reasons, key=PRECEDENCE.index))


def _not_ready_reason(catalogue: Catalogue, status: ServiceStatus) -> NotReadyReason | None:
    """Return the reason why the service does not count for its type, or None if it counts."""
    if status.state != "Running":
        return _REASONS[status.state]
    if not device_accepted(catalogue, status.spec):
        return "DeviceNotAccepted"
    return "Flapping" if status.flapping else None


def _capability_tuples(report: Report) -> Iterable[tuple[str, ...]]:
    """Yield one tuple for each capability of the node; none if the node is leaving."""
    if report.leaving:
        return
    yield ("node",)
    if not report.draining:
        yield ("offered",)
    ready = {service for capability in report.capabilities for service in capability.services}
    yield from (("type", capability.type) for capability in report.capabilities if capability.ready)
    for service in report.services:
        if service.id in ready:
            yield ("service", service.type, service.id)
            yield from _service_tuples(service)


def _service_tuples(service: Service) -> Iterable[tuple[str, ...]]:
    yield from (("language", service.id, language) for language in service.languages)
    yield from (("rule", service.id, rule.model_dump_json()) for rule in service.rules)
    for attribute in service.attributes:
        yield ("attribute", service.id, attribute.key)
        yield from (("attribute", service.id, attribute.key, value) for value in attribute.values)
