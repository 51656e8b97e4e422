"""Diagnosis of the requirement that a type has an endpoint, and remedies (requirements B13, F2). Pure."""

from collections.abc import Mapping
from typing import Final

from hotpool.api.pool import TypeRequirement
from hotpool.core.address_problems import ADDRESS_CONFLICT, ADDRESS_NOT_ALLOWED, AddressProblem, host_and_port
from hotpool.core.explain.remarks import since_of
from hotpool.core.explain.remedies import Diagnosis, NodeFacts, latest, one_of
from hotpool.core.matching import Finding, attribute_filter
from hotpool.core.model import ServiceOffer

_REMEDIES: Final[Mapping[str, str]] = {
    "LoopbackOnly": "let {service} on {node} listen on 0.0.0.0 or ::, not on a loopback address alone",
    "Local": "remove scope: local of {service} from the catalogue of {node}",
    "NoPort": "declare the port of {service} on {node}",
    "NoAddress": "set advertise.addresses in the catalogue of {node}, or spec.addresses in nodecapability {node}",
    "Unchecked": "wait until the agent of {node} has connected to {service}",
}
_UNKNOWN: Final = "upgrade the agent of {node}, which reports no endpoint of {service}"


def for_endpoint(facts: NodeFacts, required: TypeRequirement, finding: Finding) -> Diagnosis:
    """Diagnose the requirement that one service of a type, with all required attributes, has an endpoint."""
    if finding.met:
        return Diagnosis(finding.observed)
    meets = attribute_filter(required)
    offers = [offer for offer in facts.offers(required.type) if meets(offer)]
    types = [ADDRESS_CONFLICT if item.rival else ADDRESS_NOT_ALLOWED for item in facts.view.address_problems]
    since = latest(since_of(facts.view, type_) for type_ in types)
    remedy = one_of((_remedy(facts, offer) for offer in offers), "")
    return Diagnosis(finding.observed, since, (remedy,) if remedy else ())


def _remedy(facts: NodeFacts, offer: ServiceOffer) -> str:
    problems = [item for item in facts.view.address_problems if item.service == offer.service]
    if problems:
        return _remedy_of(facts.name, problems[0])
    reason = offer.endpoint_reason or ("NoAddress" if offer.endpoint else "")
    return _REMEDIES.get(reason, _UNKNOWN).format(service=offer.service, node=facts.name)


def _remedy_of(node: str, problem: AddressProblem) -> str:
    address = problem.address
    if problem.rival:
        place = host_and_port(address, problem.port)
        return (
            f"if {place} is {problem.service} of {node}, set spec.addresses: [{address}] in nodecapability {node}, and "
            f"look at the claims of {problem.rival}; else set advertise.addresses in the catalogue of {node}"
        )
    if "trustAgents" in problem.reason:
        return f"set spec.addresses: [{address}] in nodecapability {node}, or add its range to endpoints.allowedCIDRs"
    if "deniedCIDRs" in problem.reason:
        return f"change endpoints.deniedCIDRs, or set spec.addresses in nodecapability {node} to another address"
    return f"set spec.addresses in nodecapability {node} to an address at which clients reach it"
