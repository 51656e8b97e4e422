"""Addresses that a node claims for its services, and who stands for each of them (requirement B13). Pure."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import IntEnum

from hotpool.core.endpoints.address_policy import AddressPolicy
from hotpool.core.model import Node, NodeView, PodReference, ServiceEndpoint, ServiceOffer


class Voucher(IntEnum):
    """Who stands for an address. In a conflict the greater beats the smaller."""

    AGENT = 0
    """Nobody but the node's own agent."""
    RANGE = 1
    """A range that the settings allow."""
    OWNER = 2
    """People, the v1 Node of that name, or a pod that the operator read."""


@dataclass(frozen=True, slots=True)
class Claim:
    """One address and port at which a service claims to be reached."""

    service: str
    address: str
    port: int
    voucher: Voucher
    refusal: str | None = None
    """Why nobody may claim it, as a predicate of the address; None: it may be claimed."""

    @property
    def place(self) -> tuple[str, int]:
        """Address and port."""
        return self.address, self.port


ConfirmsPod = Callable[[PodReference, str, str], bool]
"""Function of a pod, a node and an address: True if the operator read that the pod runs there and has it."""


def claims_of(view: NodeView, policy: AddressPolicy, confirms_pod: ConfirmsPod) -> Iterator[Claim]:
    """Yield the claims of all ready services, in the order of the report and of the addresses."""
    report, node = view.node.report, view.node
    for offer in (offer for offers in report.offers.values() for offer in offers) if report else ():
        if offer.endpoint is not None:
            for address in dict.fromkeys(_addresses(node, offer, offer.endpoint)):
                refusal = policy.refusal(address, offer.endpoint.port)
                voucher = _voucher(view, offer, address, policy, confirms_pod)
                yield Claim(offer.service, address, offer.endpoint.port, voucher, refusal)


def has_own_addresses(offer: ServiceOffer) -> bool:
    """Return True if the service is a pod with addresses of its own, which those of the node cannot replace."""
    return offer.pod is not None and offer.endpoint is not None and bool(offer.endpoint.addresses)


def _addresses(node: Node, offer: ServiceOffer, endpoint: ServiceEndpoint) -> tuple[str, ...]:
    """Return the claimed addresses. What people wrote replaces everything but the addresses of a pod."""
    if node.addresses and not has_own_addresses(offer):
        return node.addresses
    report = node.report
    return endpoint.addresses or tuple(address.ip for address in (report.addresses if report else ()))


def _voucher(
    view: NodeView, offer: ServiceOffer, address: str, policy: AddressPolicy, confirms_pod: ConfirmsPod
) -> Voucher:
    of_pod = offer.pod is not None and confirms_pod(offer.pod, view.node.meta.name, address)
    if of_pod or address in view.node.addresses or (view.kube is not None and address in view.kube.addresses):
        return Voucher.OWNER
    return Voucher.RANGE if policy.vouches_for(address) else Voucher.AGENT
