"""Diagnosis of one requirement: observed value, since when, and remedies (requirement F2).

Language pairs are in `core.explain.language_remedies`. Pure. Makes no decision: `core.matching` evaluates the node,
also with assumed changes.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from hotpool.api.capability import Service
from hotpool.api.pool import (
    AttributeRequirement,
    LabelExpression,
    LabelSelector,
    PoolTemplateSpec,
    Requirements,
    TypeRequirement,
)
from hotpool.core.lists_of_words import listed
from hotpool.core.matching import Finding, match, selects
from hotpool.core.model import Liveness, NodeView, Report, ServiceOffer, TypeState

MAX_LISTED = 3
"""Bound of the services named in one line."""
NO_SERVICE = ("", "", 0, 0)
"""Instance, session, epoch and sequence of a hypothetical report."""


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """All data of one node that explanations use."""

    view: NodeView
    services: tuple[Service, ...] = ()
    """Reported services."""
    potential: Report | None = None
    """Report that the node would write if every service of its catalogue were ready."""

    @property
    def name(self) -> str:
        """Name of the node."""
        return self.view.node.meta.name

    def services_of_type(self, type_: str) -> tuple[Service, ...]:
        """Return the reported services of a type."""
        return tuple(service for service in self.services if service.type == type_)

    def potential_offers(self, type_: str) -> tuple[ServiceOffer, ...]:
        """Return the offers of a type if all its services were ready."""
        return self.potential.offers.get(type_, ()) if self.potential else ()

    @property
    def ready_services(self) -> list[ServiceOffer]:
        """Offers of all ready services, by id."""
        report = self.view.node.report
        found = [offer for offers in report.offers.values() for offer in offers] if report else []
        return sorted(found, key=lambda offer: offer.service)

    def offers(self, type_: str) -> tuple[ServiceOffer, ...]:
        """Return the offers of a type's ready services."""
        report = self.view.node.report
        return report.offers.get(type_, ()) if report else ()


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Observed value of one requirement, and its remedies."""

    observed: str
    since: str | None = None
    """RFC 3339."""
    remedies: tuple[str, ...] = ()
    """Changes that would make it met, all of them together; each may list alternatives."""


def for_type(facts: NodeFacts, type_: str, finding: Finding) -> Diagnosis:
    """Diagnose the requirement that a type is ready."""
    services = facts.services_of_type(type_)
    if finding.met:
        ready = tuple(offer.service for offer in facts.offers(type_))
        return Diagnosis(f"ready: {listed(ready, MAX_LISTED)}", earliest(s.since for s in services if s.id in ready))
    states = listed([f"{service.id} is {service.state}" for service in services], MAX_LISTED)
    observed = f"{finding.observed}: {states}" if states else finding.observed
    since = latest(service.since for service in services)
    add = f"add a service of type {type_} to the catalogue of {facts.name}, and start it"
    starts = (make_ready(facts, service, finding.observed) for service in services)
    return Diagnosis(observed, since, (one_of(starts, add),))


def one_of(alternatives: Iterable[str], fallback: str) -> str:
    """Join the first alternatives, each of which suffices; without any, return `fallback`."""
    return ", or ".join(list(alternatives)[:MAX_LISTED]) or fallback


def make_ready(facts: NodeFacts, service: Service, reason: str) -> str:
    """Return the remedy that makes one service ready."""
    who = f"{service.id} ({service.type})"
    match service.state:
        case "Starting":
            return f"wait until {who} has started on {facts.name}"
        case "Failed" if reason != "Flapping":
            return f"fix {who} on {facts.name}, which failed: hotpool-agent logs {service.id}"
        case "Running" if reason == "DeviceNotAccepted":
            device = f"runs on {service.device}" if service.device else "states no device"
            return f"run {service.type} on a device that its type accepts: {who} on {facts.name} {device}"
        case "Running" | "Failed":
            return f"wait until {who} on {facts.name} has run without a crash for a while"
        case _:
            return f"start service {who} on {facts.name}: hotpool-agent start {service.id}"


def for_attributes(facts: NodeFacts, required: TypeRequirement, finding: Finding) -> Diagnosis:
    """Diagnose the requirement that one service declares all these attributes."""
    services = facts.services_of_type(required.type)
    if finding.met:
        ready = [offer.service for offer in facts.offers(required.type) if _meets(facts, offer, required)]
        return Diagnosis(finding.observed, earliest(s.since for s in services if s.id in ready))
    matching = {offer.service for offer in facts.potential_offers(required.type) if _meets(facts, offer, required)}
    start = (make_ready(facts, service, "") for service in services if service.id in matching)
    words = " and ".join(_describe_attribute(attribute) for attribute in required.attributes)
    declare = f"declare {words} on one running {required.type} service in the catalogue of {facts.name}"
    since = latest(service.since for service in services)
    return Diagnosis(finding.observed, since, (one_of(start, declare),))


def _meets(facts: NodeFacts, offer: ServiceOffer, required: TypeRequirement) -> bool:
    """Return True if one service alone meets a requirement, by matching a node with this service only."""
    ready = {required.type: TypeState(ready=True)}
    report = Report(*NO_SERVICE, time="", interval=1.0, types=ready, offers={required.type: (offer,)})
    view = NodeView(replace(facts.view.node, drain=False, report=report), Liveness.LIVE)
    return match(view, PoolTemplateSpec(requires=Requirements(types=(required,)))).state is not None


def _describe_attribute(attribute: AttributeRequirement) -> str:
    any_of = f"{attribute.key}={' or '.join(attribute.any_of)}" if attribute.any_of else ""
    all_of = f"{attribute.key}={' and '.join(attribute.all_of)}" if attribute.all_of else ""
    return " with ".join(part for part in (any_of, all_of) if part)


def for_labels(facts: NodeFacts, selector: LabelSelector, finding: Finding) -> Diagnosis:
    """Diagnose the label selector of a pool. A forbidden label of the v1 Node must be removed from the v1 Node."""
    labels, name, node, kube = facts.view.labels, facts.name, facts.view.node, facts.view.kube
    if finding.met:
        return Diagnosis(finding.observed)
    failing = [e for e in selector.match_expressions if not selects(LabelSelector(match_expressions=(e,)), labels)]
    changes = [f"set label {key}={value}" for key, value in selector.match_labels.items() if labels.get(key) != value]
    changes += [_relabel(item) for item in failing if item.operator != "DoesNotExist" or item.key in node.labels]
    forbidden = [item for item in failing if item.operator == "DoesNotExist"]
    of_kube = [_relabel(item) for item in forbidden if kube and item.key in kube.labels]
    places = ((changes, f"nodecapability {name}"), (of_kube, f"node {name}"))
    remedies = tuple(f"{' and '.join(words)} on {where}" for words, where in places if words)
    return Diagnosis(finding.observed, None, remedies)


def _relabel(expression: LabelExpression) -> str:
    key, values = expression.key, " or ".join(expression.values)
    match expression.operator:
        case "In":
            return f"set label {key}={values}"
        case "NotIn":
            return f"set label {key} to anything but {values}"
        case "Exists":
            return f"set label {key}"
        case "DoesNotExist":
            return f"remove label {key}"


def earliest(times: Iterable[str | None]) -> str | None:
    """Return the earliest of RFC 3339 times written by one clock, or None."""
    return min((time for time in times if time), default=None)


def latest(times: Iterable[str | None]) -> str | None:
    """Return the latest of RFC 3339 times written by one clock, or None."""
    return max((time for time in times if time), default=None)
