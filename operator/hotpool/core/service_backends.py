"""Addresses of a node that belong behind the Service of a pool (requirement D12). Pure."""

import re
from collections.abc import Iterator
from typing import Final

from hotpool.api.names import LABEL_PATTERN
from hotpool.api.pool import PoolTemplateSpec
from hotpool.core.model import Endpoint, NodeView, ServiceOffer
from hotpool.core.service_filter import ServiceFilter
from hotpool.core.service_model import Backend, EndpointGroup, EndpointTarget

_MAX_LABEL: Final = 63
_is_label: Final = re.compile(LABEL_PATTERN).match


def backends(view: NodeView, spec: PoolTemplateSpec, services: ServiceFilter) -> tuple[Backend, ...]:
    """Return the vouched addresses of every service that meets the pool, in order of preference.

    `services`: the requirements of `spec` on single services. They are those of picks, so that both answer the same.
    """
    return tuple(_backends(view, spec, services)) if spec.service and view.endpoints else ()


def _backends(view: NodeView, spec: PoolTemplateSpec, services: ServiceFilter) -> Iterator[Backend]:
    name = view.node.meta.name
    hostname = name if len(name) <= _MAX_LABEL and _is_label(name) else None
    node_name = view.kube.meta.name if view.kube else None
    for offer, endpoint in _offers(view, spec, services):
        target = _target(view, offer)
        for address in endpoint.vouched:
            group = EndpointGroup(offer.type, "IPv6" if ":" in address else "IPv4", endpoint.port)
            yield Backend(offer.service, group, address, hostname, node_name, target)


def _offers(view: NodeView, spec: PoolTemplateSpec, services: ServiceFilter) -> Iterator[tuple[ServiceOffer, Endpoint]]:
    """Yield the services that meet the pool and have an endpoint, of the types that have a port."""
    report = view.node.report
    if report is None or spec.service is None:
        return
    types, meeting = {port.type for port in spec.service.ports}, services.exceptions(report)
    for type_ in (type_ for type_ in services.types if type_ in types):
        for offer in report.offers.get(type_, ()):
            if (meeting is None or offer.service in meeting) and (endpoint := view.endpoints.get(offer.service)):
                yield offer, endpoint


def _target(view: NodeView, offer: ServiceOffer) -> EndpointTarget:
    """Return the pod of a service that has the pod's own addresses, else the node."""
    if offer.pod and offer.endpoint and offer.endpoint.addresses:
        return EndpointTarget("Pod", offer.pod.namespace, offer.pod.name, offer.pod.uid)
    return EndpointTarget("NodeCapability", "", view.node.meta.name, view.node.meta.uid)
