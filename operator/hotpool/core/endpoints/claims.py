"""Addresses that a node claims for its services, and how far each is to be trusted (requirement B13). Pure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from hotpool.core.endpoints.address_policy import AddressPolicy, is_loopback
from hotpool.core.endpoints.pod_observations import PodClaims, PodObservations
from hotpool.core.model import Endpoint, Node, NodeView, PodReference, ServiceEndpoint, ServiceOffer


class Voucher(IntEnum):
    """Source of the trust in an address. In a conflict the greater beats the smaller."""

    AGENT = 0
    """The node's own agent alone."""
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
    """Why no node may claim it, as a predicate of the address; None: it may be claimed."""
    pod: PodReference | None = None
    """Pod to which the agent says that the address belongs."""

    @property
    def place(self) -> tuple[str, int]:
        """Address and port."""
        return self.address, self.port


def claims_of(view: NodeView, policy: AddressPolicy, pods: PodObservations) -> Iterator[Claim]:
    """Yield the claims of all ready services, in the order of the report and of the addresses."""
    for offer, endpoint in _offered(view):
        for address in dict.fromkeys(_addresses(view.node, offer, endpoint)):
            refusal = policy.refusal(address, endpoint.port)
            voucher = _voucher(view, offer.pod, address, policy, pods)
            yield Claim(offer.service, address, endpoint.port, voucher, refusal, offer.pod)


def endpoints_of(view: NodeView, usable: Mapping[str, Sequence[Claim]]) -> Iterator[tuple[str, Endpoint]]:
    """Yield service id and endpoint of each ready service with usable claims. `usable`: by service id."""
    for offer, endpoint in _offered(view):
        if claims := usable.get(offer.service):
            addresses = tuple(claim.address for claim in claims)
            vouched = tuple(claim.address for claim in claims if _is_vouched(claim))
            found = Endpoint(offer.service, offer.type, endpoint.port, addresses, vouched, endpoint.app_protocol)
            yield offer.service, found


def _is_vouched(claim: Claim) -> bool:
    """Return True if the address may enter EndpointSlices; a loopback address is for picks on one machine only."""
    return claim.voucher is not Voucher.AGENT and not is_loopback(claim.address)


def pod_claims_of(view: NodeView) -> PodClaims:
    """Return the pods that a node names as services, with the addresses that it claims for them."""
    return {
        offer.pod: endpoint.addresses for offer, endpoint in _offered(view) if offer.pod and has_own_addresses(offer)
    }


def _offered(view: NodeView) -> Iterator[tuple[ServiceOffer, ServiceEndpoint]]:
    report = view.node.report
    for offers in report.offers.values() if report else ():
        yield from ((offer, offer.endpoint) for offer in offers if offer.endpoint)


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
    view: NodeView, pod: PodReference | None, address: str, policy: AddressPolicy, pods: PodObservations
) -> Voucher:
    of_pod = pod is not None and pods.confirms(pod, view.node.meta.name, address)
    if of_pod or address in view.node.addresses or (view.kube is not None and address in view.kube.addresses):
        return Voucher.OWNER
    return Voucher.RANGE if policy.vouches_for(address) else Voucher.AGENT
