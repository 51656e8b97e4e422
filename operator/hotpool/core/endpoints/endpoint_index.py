"""Endpoints of all nodes: what each claims, what of it is allowed, and who gets what several nodes claim.

A change of one node costs its own claims, and those of the nodes that claim the same address and port. Pure.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from hotpool.core.endpoints.address_policy import AddressPolicy, is_loopback
from hotpool.core.endpoints.claimants import Claimants
from hotpool.core.endpoints.claims import Claim, Voucher, claims_of
from hotpool.core.model import AddressProblem, Endpoint, Liveness, NodeView

Place = tuple[str, int]
_UNTRUSTED: Final = "is claimed by nobody but the node's agent, and endpoints.trustAgents is false"


@dataclass(frozen=True, slots=True)
class NodeEndpoints:
    """Endpoints of one node, and the claimed addresses that are not used."""

    endpoints: Mapping[str, Endpoint] = field(default_factory=dict)
    problems: tuple[AddressProblem, ...] = ()


_NONE: Final = NodeEndpoints()


@dataclass(slots=True)
class _Entry:
    """Claims of one node, and what they came to."""

    inputs: tuple[object, ...]
    claims: tuple[Claim, ...]
    rights: Mapping[Place, int]
    result: NodeEndpoints = _NONE


@dataclass(slots=True)
class EndpointIndex:
    """Claims of all nodes, by node and by address and port."""

    policy: AddressPolicy = field(default_factory=AddressPolicy)
    _entries: dict[str, _Entry] = field(default_factory=dict)
    _claimants: dict[Place, Claimants] = field(default_factory=dict)

    def update(self, view: NodeView) -> tuple[NodeView, set[str]]:
        """Record what a node claims. Return its view with endpoints, and the other nodes whose endpoints changed."""
        name, report = view.node.meta.name, view.node.report
        if report is None or report.leaving:
            return _with(view, _NONE), self.remove(name)
        known, inputs = self._entries.get(name), _inputs(view)
        if known is not None and known.inputs == inputs:
            return _with(view, known.result), set()
        claims = tuple(claims_of(view, self.policy, lambda _pod, _node, _address: False))
        entry = _Entry(inputs, claims, _rights(claims, self.policy, alive=_is_alive(view)))
        self._entries[name] = entry
        others = self._claim(name, known.rights if known else {}, entry.rights)
        entry.result = self._result(view, entry)
        return _with(view, entry.result), others

    def remove(self, node: str) -> set[str]:
        """Forget a node. Return the other nodes for which that may matter."""
        known = self._entries.pop(node, None)
        return self._claim(node, known.rights, {}) if known else set()

    def applied(self, view: NodeView) -> NodeView:
        """Return the view of a node with the endpoints that it has now, after a change of another one."""
        entry = self._entries.get(view.node.meta.name)
        if entry is None:
            return view
        entry.result = self._result(view, entry)
        return _with(view, entry.result)

    def _claim(self, node: str, before: Mapping[Place, int], after: Mapping[Place, int]) -> set[str]:
        others: set[str] = set()
        for place in {*before, *after}:
            if before.get(place) != after.get(place):
                claimants = self._claimants.setdefault(place, Claimants())
                others |= claimants.put(node, after.get(place))
                if not claimants:
                    del self._claimants[place]
        return others

    def _result(self, view: NodeView, entry: _Entry) -> NodeEndpoints:
        name, problems = view.node.meta.name, list[AddressProblem]()
        usable: dict[str, list[Claim]] = {}
        for claim in entry.claims:
            if problem := self._problem(name, claim):
                problems.append(problem)
            else:
                usable.setdefault(claim.service, []).append(claim)
        result = NodeEndpoints(dict(self._endpoints(view, usable)), tuple(sorted(set(problems))))
        return entry.result if entry.result == result else result

    def _problem(self, node: str, claim: Claim) -> AddressProblem | None:
        if reason := _refusal(claim, self.policy):
            return AddressProblem(claim.service, *claim.place, reason)
        rival = self._claimants[claim.place].rival(node)
        if rival is None:
            return None
        right = "an equal right, so that neither gets it" if rival.equal else "a better right"
        return AddressProblem(claim.service, *claim.place, f"is claimed by {rival.node}, too, with {right}", rival.node)

    def _endpoints(self, view: NodeView, usable: Mapping[str, list[Claim]]) -> Iterator[tuple[str, Endpoint]]:
        report = view.node.report
        for offer in (offer for offers in report.offers.values() for offer in offers) if report else ():
            if offer.endpoint and (claims := usable.get(offer.service)):
                yield (
                    offer.service,
                    Endpoint(
                        offer.service,
                        offer.type,
                        offer.endpoint.port,
                        tuple(claim.address for claim in claims),
                        tuple(claim.address for claim in claims if _is_vouched(claim)),
                        offer.endpoint.app_protocol,
                    ),
                )


def _with(view: NodeView, found: NodeEndpoints) -> NodeView:
    if view.endpoints is found.endpoints and view.address_problems is found.problems:
        return view
    return replace(view, endpoints=found.endpoints, address_problems=found.problems)


def _inputs(view: NodeView) -> tuple[object, ...]:
    """Return all that a node's claims depend on, but the settings and the pods."""
    node, report = view.node, view.node.report
    claimed = (report.addresses, report.offers) if report else ()
    return (*claimed, node.addresses, view.kube.addresses if view.kube else (), _is_alive(view))


def _is_alive(view: NodeView) -> bool:
    """Return False for a node that is gone by all signs: its address may have been given to another machine."""
    return view.liveness is not Liveness.OFFLINE and view.shutdown is None


def _rights(claims: Iterable[Claim], policy: AddressPolicy, *, alive: bool) -> dict[Place, int]:
    """Return the right of a node to each place that it may claim: who stands for it, then whether it is alive."""
    rights: dict[Place, int] = {}
    for claim in claims:
        if _refusal(claim, policy) is None:
            rights[claim.place] = max(rights.get(claim.place, 0), 2 * claim.voucher + alive)
    return rights


def _refusal(claim: Claim, policy: AddressPolicy) -> str | None:
    untrusted = claim.voucher is Voucher.AGENT and not policy.trust_agents
    return claim.refusal or (_UNTRUSTED if untrusted else None)


def _is_vouched(claim: Claim) -> bool:
    """Return True if the address may enter EndpointSlices; a loopback address is for picks on one machine only."""
    return claim.voucher is not Voucher.AGENT and not is_loopback(claim.address)
