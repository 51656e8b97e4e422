"""Endpoints of a node as the leader decided, from the conditions that it stored (requirement F2). Pure.

Only the leader knows the settings, the pods that it read, and what all other nodes claim.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from hotpool.core.address_problems import ADDRESS_CONFLICT, ADDRESS_NOT_ALLOWED, AddressProblem, parse
from hotpool.core.endpoints.address_policy import AddressPolicy
from hotpool.core.endpoints.claims import Claim, claims_of, endpoints_of
from hotpool.core.endpoints.pod_observations import PodObservations
from hotpool.core.model import NodeView, StoredCondition

_ANY: Final = AddressPolicy(allow_loopback=True)


def with_stored_endpoints(view: NodeView) -> NodeView:
    """Return the view with the endpoints that the stored conditions leave of the claims."""
    problems = tuple(_stored_problems(view.node.conditions))
    unusable = {problem[:3] for problem in problems}
    usable: dict[str, list[Claim]] = {}
    for claim in claims_of(view, _ANY, PodObservations()):
        if claim.refusal is None and (claim.service, *claim.place) not in unusable:
            usable.setdefault(claim.service, []).append(claim)
    return replace(view, endpoints=dict(endpoints_of(view, usable)), address_problems=problems)


def _stored_problems(conditions: Mapping[str, StoredCondition]) -> list[AddressProblem]:
    stored = (conditions.get(type_) for type_ in (ADDRESS_NOT_ALLOWED, ADDRESS_CONFLICT))
    return [problem for item in stored if item and item.status == "True" for problem in parse(item.message)]
