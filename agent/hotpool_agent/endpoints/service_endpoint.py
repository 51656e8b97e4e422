"""Endpoint of a service, from the node's addresses and the checks of its port (requirement B13): pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from hotpool.api.capability import EndpointReason, ServiceEndpoint
from hotpool_agent.catalogue.model import ServiceSpec
from hotpool_agent.endpoints.node_addresses import FoundAddresses
from hotpool_agent.ip_addresses import one_per_family

FAILURES: Final = 2
"""Failed tries in a row after which an address does not answer."""


@dataclass(frozen=True, slots=True)
class AddressCheck:
    """Tries to connect to a service at one address. `answers`: None before the first verdict."""

    answers: bool | None = None
    failures: int = 0


class EndpointState(NamedTuple):
    """The endpoint of a service that runs, or the reason why it has none."""

    endpoint: ServiceEndpoint | None
    reason: EndpointReason | None


NEVER_CHECKED: Final = AddressCheck()


def after_try(before: AddressCheck, *, connected: bool, alive: bool) -> AddressCheck:
    """Return the check after one more try.

    `alive`: the service answers at another address, loopback included. Else the failure proves nothing about this one:
    that a service does not answer at all is a matter of its readiness.
    """
    if connected:
        return AddressCheck(answers=True)
    if not alive:
        return before
    failures = min(before.failures + 1, FAILURES)
    return AddressCheck(answers=False if failures >= FAILURES else before.answers, failures=failures)


def endpoint_of(spec: ServiceSpec, node: FoundAddresses | None, checks: Mapping[str, AddressCheck]) -> EndpointState:
    """Return the endpoint of a running service of the catalogue.

    `node`: None before the node's addresses are known. `checks`: by address. An address of the agent's own counts when
    the service answers there, any other one without a check.
    """
    if spec.scope == "local":
        return EndpointState(None, "Local")
    if spec.port is None:
        return EndpointState(None, "NoPort")
    if node is None:
        return EndpointState(None, "Unchecked")
    if not node.ips:
        return EndpointState(None, "NoAddress")
    answers = {ip: checks.get(ip, NEVER_CHECKED).answers if ip in node.own else True for ip in node.ips}
    usable = tuple(ip for ip, answer in answers.items() if answer)
    if not usable:
        return EndpointState(None, "Unchecked" if None in answers.values() else "LoopbackOnly")
    own = () if usable == node.ips else one_per_family(usable)
    return EndpointState(ServiceEndpoint(addresses=own, port=spec.port, app_protocol=spec.app_protocol), None)


def pod_endpoint(spec: ServiceSpec, addresses: tuple[str, ...]) -> EndpointState:
    """Return the endpoint of a running pod with these canonical addresses."""
    if spec.port is None:
        return EndpointState(None, "NoPort")
    if not addresses:
        return EndpointState(None, "NoAddress")
    own = one_per_family(addresses)
    return EndpointState(ServiceEndpoint(addresses=own, port=spec.port, app_protocol=spec.app_protocol), None)
