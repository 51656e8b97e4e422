"""Content of a report, from the catalogue and the states of services (requirements B1, B2, B3, B5, B11): pure.

Builds and compares contents. Must not know when or how they are sent.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Any, Final, Literal, get_args

from hotpool.api.capability import MAX_TYPES, NotReadyReason, Report, Service, TypeCapability
from hotpool_agent.catalogue.model import Catalogue, device_accepted
from hotpool_agent.reporting.report_limits import DropCounter, bounded_services, fitting, truncate
from hotpool_agent.services.status import ServiceStatus

_PRECEDENCE: Final = get_args(NotReadyReason)
_DIGITS: Final = re.compile(r"[0-9]+")
_NOT_IN_DIGEST: Final = {"time", "epoch", "sequence", "session", "truncated"}
MinimalReason = Literal["ReportRejected", "ReportFailed"]
"""Reasons of all types in a minimal report: the API server rejected the whole one, or it could not be built."""


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
    dropped_items: tuple[str, ...] = ()
    """A line for people about each place with items that were left out."""
    minimal: MinimalReason | None = None

    def offers(self, service: str) -> bool:
        """Return True if the service counts for a type in this report."""
        return any(service in capability.services for capability in self.report.capabilities)


def build(
    catalogue: Catalogue,
    statuses: Sequence[ServiceStatus],
    blank: Report,
    *,
    leaving: bool,
    draining: bool = False,
    refused: Sequence[str] = (),
) -> ReportContent:
    """Return the report of these states. It counts invalid items as dropped, and cut texts and lists as truncated.

    `blank`: the report without services and stamps. `refused`: invalid pods and the reasons, as text. They have no
    status, and count as dropped, too.
    """
    dropped = DropCounter()
    statuses, left_out = fitting(statuses)
    services, invalid = bounded_services(statuses, dropped)
    statuses = [status for status in statuses if status.spec.id not in invalid]
    capabilities = dropped.limit_items(_capabilities(catalogue, statuses), MAX_TYPES, "types")
    running = sum(status.state == "Running" for status in statuses)
    report = blank.model_copy(
        update={
            "leaving": leaving,
            "draining": draining,
            "summary": f"{running}/{len(statuses)}",
            "ready_types": listed_types([item.type for item in capabilities if item.ready]),
            "services": services,
            "capabilities": capabilities,
            "dropped": dropped.count + len(left_out) + len(refused),
        }
    )
    items = (*dropped.items, *(f"pod {pod}: the report has no room for it" for pod in left_out), *refused)
    stable = {status.spec.id: _stable_error(status) for status in statuses}
    return replace(with_digest(report, stable), dropped=tuple(left_out), dropped_items=items)


def listed_types(types: Sequence[str], limit: int = 63) -> str:
    """Return `asr,nmt`, or `asr,nmt,+3` if not all fit into `limit` characters."""
    for left in range(len(types)):
        text = ",".join([*types[: len(types) - left], *([f"+{left}"] if left else [])])
        if len(text) <= limit:
            return text
    return f"+{len(types)}" if types else ""


def minimal(whole: Report, reason: MinimalReason) -> ReportContent:
    """Return the report in which no type is ready, sent in place of a whole one (requirements A12, B11)."""
    unready = tuple(
        TypeCapability(type=capability.type, ready=False, reason=reason) for capability in whole.capabilities
    )
    left_out = {"services": (), "addresses": (), "platform": None, "hardware": None, "ready_types": ""}
    bare = whole.model_copy(update={"capabilities": unready, **left_out})
    return replace(with_digest(bare), minimal=reason)


def with_digest(whole: Report, stable_errors: Mapping[str, str | None] | None = None) -> ReportContent:
    """Return the report within its limit, with its digest and capability tuples.

    `stable_errors`: by service id, the text that the digest has in place of the last error. The digest is that of the
    report before details are left out, because their choice depends on the length of the errors.
    """
    document = {key: value for key, value in to_json(whole).items() if key not in _NOT_IN_DIGEST}
    for service in document["services"]:
        service["lastError"] = (stable_errors or {}).get(service["id"])
    digest = hashlib.sha256(json.dumps(document, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    report = truncate(whole)
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


def _stable_error(status: ServiceStatus) -> str | None:
    """Return the part of the last error that does not change by itself (requirement B5).

    The error of a pod may contain ports and pauses of Kubernetes.
    """
    error = status.last_error if status.stable_error is None else status.stable_error
    return _DIGITS.sub("", error) if error and status.pod else error


def _capabilities(catalogue: Catalogue, statuses: Sequence[ServiceStatus]) -> tuple[TypeCapability, ...]:
    types = sorted({*catalogue.types, *(status.spec.type for status in statuses)})
    return tuple(
        _capability(catalogue, type_, [status for status in statuses if status.spec.type == type_]) for type_ in types
    )


def _capability(catalogue: Catalogue, type_: str, statuses: Sequence[ServiceStatus]) -> TypeCapability:
    reasons_by_id = {status.spec.id: not_ready_reason(catalogue, status) for status in statuses}
    ready = tuple(identifier for identifier, reason in reasons_by_id.items() if reason is None)
    if ready:
        return TypeCapability(type=type_, ready=True, services=ready)
    reasons = {reason for reason in reasons_by_id.values() if reason} or {"NotInstalled"}
    return TypeCapability(type=type_, ready=False, reason=min(reasons, key=_PRECEDENCE.index))


def not_ready_reason(catalogue: Catalogue, status: ServiceStatus) -> NotReadyReason | None:
    """Return the reason why the service does not count for its type, or None if it counts."""
    if status.state != "Running":
        return "Stopped" if status.state == "Stopping" else status.state
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
            yield from _endpoint_tuples(report, service)
            yield ("capacity", service.id, str(service.max_concurrent or "unlimited"))  # a changed one is a withdrawal


def _endpoint_tuples(report: Report, service: Service) -> Iterable[tuple[str, ...]]:
    """Yield one tuple for each place to connect to: another port or protocol withdraws the former place."""
    if endpoint := service.endpoint:
        for ip in endpoint.addresses or [address.ip for address in report.addresses]:
            yield ("endpoint", service.id, ip, str(endpoint.port), endpoint.app_protocol or "")


def _service_tuples(service: Service) -> Iterable[tuple[str, ...]]:
    yield from (("language", service.id, language) for language in service.languages)
    yield from (("rule", service.id, rule.model_dump_json()) for rule in service.rules)
    for attribute in service.attributes:
        yield ("attribute", service.id, attribute.key)
        yield from (("attribute", service.id, attribute.key, value) for value in attribute.values)
