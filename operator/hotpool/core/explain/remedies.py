"""What was observed of one requirement, since when, and what would flip it (requirement F2).

Language pairs are in `core.explain.language_remedies`. Pure. It decides nothing: it puts a finding of the judge into a
person's words, and asks the judge what would be if.
"""

from collections.abc import Iterable, Mapping
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
from hotpool.core.matching import Finding, match, selects
from hotpool.core.model import Liveness, NodeView, Report, ServiceOffer, TypeState

MAX_LISTED = 3
"""Services named in one line."""
NO_SERVICE = ("", "", 0, 0)
"""Instance, session, epoch and sequence of a report that is made up to ask what would be if."""


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What is known of one node."""

    view: NodeView
    services: tuple[Service, ...] = ()
    """As reported."""
    potential: Report | None = None
    """What the node would report if every service of its catalogue ran and counted."""

    @property
    def name(self) -> str:
        """The node's name."""
        return self.view.node.meta.name

    @property
    def own_labels(self) -> Mapping[str, str]:
        """The labels of the NodeCapability."""
        return self.view.node.labels

    @property
    def kube_labels(self) -> Mapping[str, str]:
        """The labels of the v1 Node of its name."""
        return self.view.kube.labels if self.view.kube else {}

    def services_of_type(self, type_: str) -> tuple[Service, ...]:
        """The services of one type."""
        return tuple(service for service in self.services if service.type == type_)

    def potential_offers(self, type_: str) -> tuple[ServiceOffer, ...]:
        """What the services of a type would offer if they all counted."""
        return self.potential.offers.get(type_, ()) if self.potential else ()

    def offers(self, type_: str) -> tuple[ServiceOffer, ...]:
        """The services of a type that count now."""
        report = self.view.node.report
        return report.offers.get(type_, ()) if report else ()


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What one requirement met."""

    observed: str
    since: str | None = None
    """RFC 3339."""
    remedies: tuple[str, ...] = ()
    """What would make it hold: all of these together, alternatives within each."""


def for_type(facts: NodeFacts, type_: str, finding: Finding) -> Diagnosis:
    """A type that must be ready."""
    services = facts.services_of_type(type_)
    if finding.met:
        counting = tuple(offer.service for offer in facts.offers(type_))
        return Diagnosis(f"ready: {list_some(counting)}", earliest(s.since for s in services if s.id in counting))
    states = list_some([f"{service.id} is {service.state}" for service in services])
    observed = f"{finding.observed}: {states}" if states else finding.observed
    since = latest(service.since for service in services)
    add = f"add a service of type {type_} to the catalogue of {facts.name}, and start it"
    return Diagnosis(
        observed,
        since,
        (join_alternatives((make_ready(facts, service, finding.observed) for service in services), add),),
    )


def join_alternatives(ways: Iterable[str], otherwise: str) -> str:
    """The first of some ways, any of which will do; where there is none, another."""
    return ", or ".join(list(ways)[:MAX_LISTED]) or otherwise


def make_ready(facts: NodeFacts, service: Service, reason: str) -> str:
    """How one service comes to count."""
    who = f"{service.id} ({service.type})"
    match service.state:
        case "Starting":
            return f"wait until {who} has started on {facts.name}"
        case "Failed" if reason != "Flapping":
            return f"mend {who} on {facts.name}, which failed: hotpool-agent logs {service.id}"
        case "Running" if reason == "DeviceNotAccepted":
            device = f"runs on {service.device}" if service.device else "states no device"
            return f"run {service.type} on a device that its type accepts: {who} on {facts.name} {device}"
        case "Running" | "Failed":
            return f"wait until {who} on {facts.name} has run without a crash for a while"
        case _:
            return f"start service {who} on {facts.name}: hotpool-agent start {service.id}"


def for_attributes(facts: NodeFacts, required: TypeRequirement, finding: Finding) -> Diagnosis:
    """Attributes that one and the same service must declare."""
    services = facts.services_of_type(required.type)
    if finding.met:
        counting = [offer.service for offer in facts.offers(required.type) if _meets(facts, offer, required)]
        return Diagnosis(finding.observed, earliest(s.since for s in services if s.id in counting))
    fitting = {offer.service for offer in facts.potential_offers(required.type) if _meets(facts, offer, required)}
    start = (make_ready(facts, service, "") for service in services if service.id in fitting)
    words = " and ".join(_describe_attribute(attribute) for attribute in required.attributes)
    declare = f"declare {words} on one running {required.type} service in the catalogue of {facts.name}"
    return Diagnosis(
        finding.observed, latest(service.since for service in services), (join_alternatives(start, declare),)
    )


def _meets(facts: NodeFacts, offer: ServiceOffer, required: TypeRequirement) -> bool:
    """Whether one service alone meets a requirement: asked of the judge, with a node of just that service."""
    ready = {required.type: TypeState(ready=True)}
    report = Report(*NO_SERVICE, time="", interval=1.0, types=ready, offers={required.type: (offer,)})
    view = NodeView(replace(facts.view.node, drain=False, report=report), Liveness.LIVE)
    return match(view, PoolTemplateSpec(requires=Requirements(types=(required,)))).state is not None


def _describe_attribute(attribute: AttributeRequirement) -> str:
    one = f"{attribute.key}={' or '.join(attribute.any_of)}" if attribute.any_of else ""
    every = f"{attribute.key}={' and '.join(attribute.all_of)}" if attribute.all_of else ""
    return " with ".join(part for part in (one, every) if part)


def for_labels(facts: NodeFacts, selector: LabelSelector, finding: Finding) -> Diagnosis:
    """Labels that the NodeCapability must bear; one of the v1 Node can be removed only there."""
    labels, name = facts.view.labels, facts.name
    if finding.met:
        return Diagnosis(finding.observed)
    failing = [e for e in selector.match_expressions if not selects(LabelSelector(match_expressions=(e,)), labels)]
    flips = [f"set label {key}={value}" for key, value in selector.match_labels.items() if labels.get(key) != value]
    flips += [
        _label_change(item) for item in failing if item.operator != "DoesNotExist" or item.key in facts.own_labels
    ]
    of_kube = [
        _label_change(item) for item in failing if item.operator == "DoesNotExist" and item.key in facts.kube_labels
    ]
    ways = ((flips, f"nodecapability {name}"), (of_kube, f"node {name}"))
    return Diagnosis(
        finding.observed, None, tuple(f"{' and '.join(words)} on {where}" for words, where in ways if words)
    )


def _label_change(expression: LabelExpression) -> str:
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


def list_some(words: Iterable[str], limit: int = MAX_LISTED) -> str:
    """The first of some words, and how many more there are."""
    found = list(words)
    more = f" and {len(found) - limit} more" if len(found) > limit else ""
    return ", ".join(found[:limit]) + more


def earliest(times: Iterable[str | None]) -> str | None:
    """The earliest of times that one clock has written."""
    return min((time for time in times if time), default=None)


def latest(times: Iterable[str | None]) -> str | None:
    """The latest of times that one clock has written."""
    return max((time for time in times if time), default=None)
