"""Endpoints of all nodes: what each claims, what of it is allowed, and who gets what several nodes claim.

A change of one node costs its own claims, and those of the nodes that claim the same address and port. Pure.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Final

from hotpool.core.address_problems import AddressProblem, conflict
from hotpool.core.endpoints.address_policy import AddressPolicy
from hotpool.core.endpoints.claimants import Claimants
from hotpool.core.endpoints.claims import Claim, Voucher, claims_of, endpoints_of, pod_claims_of
from hotpool.core.endpoints.pod_observations import PodClaims, PodObservations
from hotpool.core.model import Endpoint, Liveness, NodeView

Place = tuple[str, int]
_NODES_PER_STEP = 20
_UNTRUSTED: Final = "is claimed by the node's agent alone, and endpoints.trustAgents is false"


@dataclass(frozen=True, slots=True)
class NodeEndpoints:
    """Endpoints of one node, and the claimed addresses that are not used."""

    endpoints: Mapping[str, Endpoint] = field(default_factory=dict)
    problems: tuple[AddressProblem, ...] = ()


_NONE: Final = NodeEndpoints()


@dataclass(slots=True)
class _Entry:
    """Claims of one node, and the endpoints that follow from them."""

    inputs: tuple[object, ...]
    policy: AddressPolicy
    rights: Mapping[Place, int]
    pods: PodClaims
    result: NodeEndpoints = _NONE


@dataclass(slots=True)
class EndpointIndex:
    """Claims of all nodes, by node and by address and port."""

    policy: AddressPolicy = field(default_factory=AddressPolicy)
    pods: PodObservations = field(default_factory=PodObservations)
    contested: dict[str, None] = field(default_factory=dict)
    """Nodes to update because of a change of another one, the first due first."""
    _entries: dict[str, _Entry] = field(default_factory=dict)
    _claimants: dict[Place, Claimants] = field(default_factory=dict)

    def update(self, view: NodeView) -> tuple[NodeView, set[str]]:
        """Record what a node claims. Return its view with endpoints, and the other nodes whose endpoints changed."""
        name, report = view.node.meta.name, view.node.report
        if report is None or report.leaving:
            return _with(view, _NONE), self.remove(name)
        known, pods = self._entries.get(name), pod_claims_of(view)
        inputs = (*_inputs(view), *map(self.pods.state, pods))
        if known is not None and known.inputs == inputs and known.policy == self.policy:
            return _with(view, known.result), set()
        claims = tuple(claims_of(view, self.policy, self.pods))
        entry = _Entry(inputs, self.policy, _rights(claims, self.policy, alive=_is_alive(view)), pods)
        self._entries[name] = entry
        self.pods.claim(name, known.pods if known else {}, pods)
        others = self._claim(name, known.rights if known else {}, entry.rights)
        entry.result = self._result(view, claims, _NONE)
        return _with(view, entry.result), others

    def remove(self, node: str) -> set[str]:
        """Forget a node. Return the other nodes for which that may matter."""
        known = self._entries.pop(node, None)
        if known is None:
            return set()
        self.pods.claim(node, known.pods, {})
        return self._claim(node, known.rights, {})

    def take(self, names: Iterable[str]) -> list[str]:
        """Return nodes to update, these and those that are left from before, but not more than one step allows.

        A report can contest an address of each of 2,000 other nodes.
        """
        self.contested |= dict.fromkeys(names)
        taken = list(islice(self.contested, _NODES_PER_STEP))
        for name in taken:
            del self.contested[name]
        return taken

    def applied(self, view: NodeView) -> NodeView:
        """Return the view of a node with the endpoints that it has now, after a change of another one.

        One that is still to be judged by another policy keeps those that it has: its rights are those of the former.
        """
        entry = self._entries.get(view.node.meta.name)
        if entry is None or entry.policy != self.policy:
            return view
        entry.result = self._result(view, claims_of(view, self.policy, self.pods), entry.result)
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

    def _result(self, view: NodeView, claims: Iterable[Claim], before: NodeEndpoints) -> NodeEndpoints:
        """Return what a node gets of its claims: the result before, if it is equal."""
        name, problems = view.node.meta.name, list[AddressProblem]()
        usable: dict[str, list[Claim]] = {}
        for claim in claims:
            if problem := self._problem(name, claim):
                problems.extend([] if self._is_undecided(claim) else [problem])
            else:
                usable.setdefault(claim.service, []).append(claim)
        result = NodeEndpoints(dict(endpoints_of(view, usable)), tuple(sorted(set(problems), key=_order)))
        return before if before == result else result

    def _problem(self, node: str, claim: Claim) -> AddressProblem | None:
        if reason := _refusal(claim, self.policy):
            return AddressProblem(claim.service, *claim.place, reason)
        rival = self._claimants[claim.place].rival(node)
        if rival is None:
            return None
        if rival.equal and claim.pod and self.pods.confirms(claim.pod, node, claim.address):
            self.pods.unread.add(claim.pod)  # it may have ended, and its address belong to the other
        return conflict(claim.service, *claim.place, rival.node, equal=rival.equal)

    def _is_undecided(self, claim: Claim) -> bool:
        """Return True while the pod that may vouch for the address is about to be read."""
        return claim.pod is not None and claim.refusal is None and self.pods.is_pending(claim.pod)


def _order(problem: AddressProblem) -> tuple[object, ...]:
    return problem[:4]


def _with(view: NodeView, found: NodeEndpoints) -> NodeView:
    if view.endpoints is found.endpoints and view.address_problems is found.problems:
        return view
    return replace(view, endpoints=found.endpoints, address_problems=found.problems)


def _inputs(view: NodeView) -> tuple[object, ...]:
    """Return all that a node's claims depend on, except the settings and what was read of pods."""
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
