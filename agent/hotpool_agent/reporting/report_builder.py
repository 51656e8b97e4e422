"""What the node can do, as a report (requirements B1, B2, B3, B5, B11): pure functions of the catalogue and the states.

Decides contents and compares them; must not know when or how they are sent.
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
from hotpool_agent.reporting.report_limits import DropCounter, affordable, bounded_services, fit
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
    """What does not change while the agent runs."""

    agent_version: str
    instance: str
    session: str
    interval: int
    platform: Platform
    hardware: Hardware


class Change(IntEnum):
    """What a report is to the one sent before, the strongest kind last (requirement B6)."""

    NONE = 0
    NEUTRAL = 1
    GAIN = 2
    WITHDRAWAL = 3


@dataclass(frozen=True, slots=True)
class ReportContent:
    """A report without stamps, its digest, and everything that the node can do as comparable words."""

    report: Report
    digest: str
    capabilities: frozenset[tuple[str, ...]]
    dropped: tuple[str, ...] = ()
    """Pods, as NAMESPACE/NAME, that the report has no room for; `dropped` counts them."""

    def offers(self, service: str) -> bool:
        """Whether the service counts for a type in this report."""
        return any(service in capability.services for capability in self.report.capabilities)


def build(
    catalogue: Catalogue, snapshots: Sequence[ServiceStatus], facts: AgentInfo, *, leaving: bool, refused: int = 0
) -> ReportContent:
    """The report of this moment; invalid items are left out and counted in `dropped`, length in `truncated`.

    `refused`: what is no service because it is invalid, and so is not among the snapshots.
    """
    dropped = DropCounter()
    snapshots, left_out = affordable(snapshots)
    services = bounded_services(snapshots, dropped)
    capabilities = _capabilities(catalogue, snapshots)
    running = sum(snapshot.state == "Running" for snapshot in snapshots)
    report = Report(
        schema_version=REPORT_SCHEMA_VERSION,
        agent_version=facts.agent_version,
        instance=facts.instance,
        session=facts.session,
        epoch=0,
        sequence=0,
        time="",
        leaving=leaving,
        interval_seconds=facts.interval,
        summary=f"{running}/{len(snapshots)}",
        platform=facts.platform,
        hardware=facts.hardware,
        services=services,
        capabilities=capabilities[:MAX_TYPES],
        dropped=dropped.count + len(left_out) + refused + max(0, len(capabilities) - MAX_TYPES),
    )
    return replace(content(fit(report)), dropped=tuple(left_out))


def minimal(whole: Report) -> ReportContent:
    """The report that says nothing is ready: the answer to a refusal by the schema (requirement B11)."""
    nothing = tuple(
        TypeCapability(type=capability.type, ready=False, reason="ReportRejected") for capability in whole.capabilities
    )
    return content(
        whole.model_copy(update={"services": (), "capabilities": nothing, "platform": None, "hardware": None})
    )


def content(report: Report) -> ReportContent:
    """The report with its digest and reach."""
    plain = {key: value for key, value in wire(report).items() if key not in _STAMPS}
    digest = hashlib.sha256(json.dumps(plain, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    return ReportContent(report, digest, frozenset(_ready_capabilities(report)))


def classify(before: ReportContent | None, now: ReportContent) -> Change:
    """What `now` is to the report sent before; a mixed change is a withdrawal."""
    if before is None:
        return Change.WITHDRAWAL
    if before.digest == now.digest:
        return Change.NONE
    if before.capabilities - now.capabilities:
        return Change.WITHDRAWAL
    return Change.GAIN if now.capabilities - before.capabilities else Change.NEUTRAL


def stamped(what: ReportContent, epoch: int, sequence: int, time: str) -> dict[str, Any]:
    """The wire form with its stamps: every key is there, null where absent."""
    return wire(what.report) | {"epoch": epoch, "sequence": sequence, "time": time}


def wire(report: Report) -> dict[str, Any]:
    """The JSON form of a report, every key present."""
    return report.model_dump(mode="json", by_alias=True)


def _capabilities(catalogue: Catalogue, snapshots: Sequence[ServiceStatus]) -> tuple[TypeCapability, ...]:
    types = sorted({*catalogue.types, *(snapshot.spec.type for snapshot in snapshots)})
    return tuple(
        _capability(catalogue, type_, [snapshot for snapshot in snapshots if snapshot.spec.type == type_])
        for type_ in types
    )


def _capability(catalogue: Catalogue, type_: str, snapshots: Sequence[ServiceStatus]) -> TypeCapability:
    why_not = {snapshot.spec.id: _why_not(catalogue, snapshot) for snapshot in snapshots}
    ready = tuple(identifier for identifier, reason in why_not.items() if reason is None)
    if ready:
        return TypeCapability(type=type_, ready=True, services=ready)
    reasons = {reason for reason in why_not.values() if reason} or {"NotInstalled"}
    return TypeCapability(type=type_, ready=False, reason=min(reasons, key=PRECEDENCE.index))


def _why_not(catalogue: Catalogue, snapshot: ServiceStatus) -> NotReadyReason | None:
    """Why the service does not count for its type; None: it does."""
    if snapshot.state != "Running":
        return _REASONS[snapshot.state]
    if not device_accepted(catalogue, snapshot.spec):
        return "DeviceNotAccepted"
    return "Flapping" if snapshot.flapping else None


def _ready_capabilities(report: Report) -> Iterable[tuple[str, ...]]:
    """One word for each thing that the node can do; nothing when it is leaving."""
    if report.leaving:
        return
    yield ("node",)
    ready = {service for capability in report.capabilities for service in capability.services}
    yield from (("type", capability.type) for capability in report.capabilities if capability.ready)
    for service in report.services:
        if service.id in ready:
            yield ("service", service.type, service.id)
            yield from _offers(service)


def _offers(service: Service) -> Iterable[tuple[str, ...]]:
    yield from (("language", service.id, language) for language in service.languages)
    yield from (("rule", service.id, rule.model_dump_json()) for rule in service.rules)
    for attribute in service.attributes:
        yield ("attribute", service.id, attribute.key)
        yield from (("attribute", service.id, attribute.key, value) for value in attribute.values)
