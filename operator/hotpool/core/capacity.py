"""Limits of reservations on one node (requirement E9). Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from hotpool.core.model import NodeView


class ReadyService(NamedTuple):
    """Type and id of a ready service. In this order they sort as in Redis."""

    type: str
    service: str


@dataclass(frozen=True, slots=True)
class NodeLimits:
    """Limits of a node that has at least one."""

    services: Mapping[ReadyService, int | None]
    """Every ready service → its limit; None: no limit."""
    types: Mapping[str, int]
    """Type → limit of all its services together."""


def limits_of(view: NodeView) -> NodeLimits | None:
    """Return the limits of a node, None for a node without any, or one that leaves all pools."""
    report = view.node.report
    if report is None or report.leaving:
        return None
    offers = [offer for of_type in report.offers.values() for offer in of_type]
    if not view.node.limits and all(offer.max_concurrent is None for offer in offers):
        return None
    services = {ReadyService(offer.type, offer.service): offer.max_concurrent for offer in offers}
    return NodeLimits(services, view.node.limits)
