"""Wire shape of a pool's Service and EndpointSlices: decoded to core values, and built from them (requirement D12).

Pure. An object that is not as the operator writes it is decoded, too, so that it can be repaired.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from hotpool.api import meta
from hotpool.api.slice import MemberState
from hotpool.core.model import Meta, Pool
from hotpool.core.service_model import (
    DesiredService,
    DesiredSlice,
    EndpointGroup,
    EndpointTarget,
    ServicePort,
    SliceEndpoint,
    StoredEndpointSlice,
    StoredService,
)

Json = dict[str, Any]

SERVICES: Final = "v1"
"""Group and version of Services."""
ENDPOINT_SLICES: Final = "discovery.k8s.io/v1"
POOL_LABEL: Final = "service.hotpool.dev/pool"
"""On Services and EndpointSlices: the pool that they publish."""
TERM_ANNOTATION: Final = "service.hotpool.dev/term"
"""On Services and EndpointSlices: term of the leader that wrote the object."""
_TERM: Final = re.compile(r"[0-9]{1,16}")
"""Terms that the chart's admission policy for the operator compares. Must not accept fewer: it lets none of them go
back, so that a larger one, from whoever, must be written again.
"""
SERVICE_NAME_LABEL: Final = "kubernetes.io/service-name"
MANAGER_LABEL: Final = "endpointslice.kubernetes.io/managed-by"
MANAGER: Final = "operator.hotpool.dev"

_CONDITIONS: Final[Mapping[MemberState, Json]] = {
    "Ready": {"ready": True, "serving": True, "terminating": False},
    "Suspect": {"ready": False, "serving": False, "terminating": False},
    # Never serving: kube-proxy would fall back to it.
    "Draining": {"ready": False, "serving": False, "terminating": True},
}
_STATES: Final = {tuple(conditions.values()): state for state, conditions in _CONDITIONS.items()}
_FIXED: Final[Mapping[str, Any]] = {
    "selector": None,
    "type": "ClusterIP",
    "ipFamilyPolicy": "PreferDualStack",
    "externalIPs": None,
    "externalName": None,
    "externalTrafficPolicy": None,
    "healthCheckNodePort": None,
    "allocateLoadBalancerNodePorts": None,
    "loadBalancerClass": None,
    "loadBalancerIP": None,
    "loadBalancerSourceRanges": None,
    "publishNotReadyAddresses": None,
}
"""Fields of a Service's spec that are the same for every pool; None: absent, or a value that counts as absent."""
_UNREADABLE: Final = (LookupError, TypeError, ValueError, AttributeError)


def decode_service(body: Json) -> StoredService | None:
    """Decode a Service, or return None for an object without an identity."""
    try:
        known, spec = body["metadata"], body.get("spec") or {}
        ports = tuple(_service_port(port) for port in spec.get("ports") or ())
        fixed = all((spec.get(name) or None) == value for name, value in _FIXED.items())
        content = DesiredService(known["name"], spec.get("clusterIP") == "None", tuple(port for port, _ in ports))
        return StoredService(
            meta=_meta(known),
            pool=_labels(known).get(POOL_LABEL, ""),
            owner=_owner(known, meta.API_VERSION, "NodePool"),
            term=_term(known),
            content=content,
            intact=fixed and all(regular for _, regular in ports),
            deleted="deletionTimestamp" in known,
        )
    except _UNREADABLE:
        return None


def service_body(pool: Pool, service: DesiredService, term: int, *, to_patch: bool = False) -> Json:
    """Return a Service. `to_patch`: as a merge patch, which also removes what does not belong there."""
    fixed = {name: value for name, value in _FIXED.items() if to_patch or value is not None}
    headless = {"clusterIP": "None"} if service.headless else {}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": service.name,
            "labels": {POOL_LABEL: pool.meta.name},
            "annotations": {TERM_ANNOTATION: str(term)},
            "ownerReferences": [_reference(meta.API_VERSION, "NodePool", pool.meta)],
        },
        "spec": {**fixed, **headless, "ports": [_port_body(port) for port in service.ports]},
    }


def decode_endpoint_slice(body: Json) -> StoredEndpointSlice | None:
    """Decode an EndpointSlice, or return None for an object without an identity."""
    try:
        known, labels = body["metadata"], _labels(body["metadata"])
        content = _slice_content(body) if labels.get(MANAGER_LABEL) == MANAGER else None
        return StoredEndpointSlice(
            meta=_meta(known),
            pool=labels.get(POOL_LABEL, ""),
            owner=_owner(known, SERVICES, "Service"),
            term=_term(known),
            service=labels.get(SERVICE_NAME_LABEL, ""),
            family=str(body.get("addressType")),
            content=content,
        )
    except _UNREADABLE:
        return None


def endpoint_slice_body(
    pool: Pool, service: Meta, name: str, content: DesiredSlice, *, term: int, namespace: str
) -> Json:
    """Return an EndpointSlice, which replaces every field of a stored one as a merge patch."""
    port = {"name": content.group.type, "port": content.group.port, "protocol": "TCP"}
    protocol = {"appProtocol": content.app_protocol} if content.app_protocol else {}
    return {
        "apiVersion": ENDPOINT_SLICES,
        "kind": "EndpointSlice",
        "metadata": {
            "name": name,
            "labels": {POOL_LABEL: pool.meta.name, SERVICE_NAME_LABEL: service.name, MANAGER_LABEL: MANAGER},
            "annotations": {TERM_ANNOTATION: str(term)},
            "ownerReferences": [_reference(SERVICES, "Service", service)],
        },
        "addressType": content.group.family,
        "ports": [{**port, **protocol}],
        "endpoints": [_endpoint_body(endpoint, namespace) for endpoint in content.endpoints],
    }


def _endpoint_body(endpoint: SliceEndpoint, namespace: str) -> Json:
    target = endpoint.target
    reference = {"kind": target.kind, "namespace": target.namespace or namespace, "name": target.name}
    if target.kind == "NodeCapability":
        reference["apiVersion"] = meta.API_VERSION
    body: Json = {
        "addresses": [endpoint.address],
        "conditions": dict(_CONDITIONS[endpoint.state]),
        "targetRef": {**reference, "uid": target.uid},
    }
    optional = {"hostname": endpoint.hostname, "nodeName": endpoint.node_name}
    return body | {name: value for name, value in optional.items() if value is not None}


def _slice_content(body: Json) -> DesiredSlice | None:
    """Return the content, or None if it holds anything that the operator does not write."""
    try:
        (port,) = body["ports"]
        protocol = port.get("appProtocol")
        group = EndpointGroup(port["name"], body["addressType"], port["port"])
        expected = {"name": group.type, "port": group.port, "protocol": "TCP", "appProtocol": protocol}
        if {"appProtocol": None, **port} != expected:
            return None
        namespace = body["metadata"].get("namespace")
        endpoints = tuple(_slice_endpoint(item, namespace) for item in body.get("endpoints") or ())
        return DesiredSlice(group, protocol, endpoints)
    except _UNREADABLE:
        return None


def _slice_endpoint(item: Json, namespace: str) -> SliceEndpoint:
    """Return an endpoint. Raise ValueError unless the operator would write it like this."""
    (address,) = item["addresses"]
    given = item["conditions"]
    state = _STATES[given["ready"], given["serving"], given["terminating"]]
    reference = item["targetRef"]
    elsewhere = "" if reference["kind"] == "NodeCapability" else reference["namespace"]
    target = EndpointTarget(reference["kind"], elsewhere, reference["name"], reference["uid"])
    endpoint = SliceEndpoint(address, state, item.get("hostname"), item.get("nodeName"), target)
    if _endpoint_body(endpoint, namespace) != item:
        raise ValueError("other fields")
    return endpoint


def _service_port(port: Json) -> tuple[ServicePort, bool]:
    """Return a port, and True if its other fields are as the operator writes them."""
    regular = port.get("protocol", "TCP") == "TCP" and not port.get("nodePort")
    regular = regular and port.get("targetPort", port["port"]) == port["port"]
    return ServicePort(port.get("name") or "", port["port"], port.get("appProtocol")), regular


def _port_body(port: ServicePort) -> Json:
    protocol = {"appProtocol": port.app_protocol} if port.app_protocol else {}
    return {"name": port.name, "port": port.port, "protocol": "TCP", "targetPort": port.port, **protocol}


def _meta(known: Json) -> Meta:
    return Meta(known["name"], known["uid"], int(known["resourceVersion"]))


def _labels(known: Json) -> Json:
    return known.get("labels") or {}


def _term(known: Json) -> int | None:
    """Return the term in the annotation; None if there is none that a leader could have written."""
    text = (known.get("annotations") or {}).get(TERM_ANNOTATION) or ""
    return int(text) if _TERM.fullmatch(text) else None


def _owner(known: Json, version: str, kind: str) -> str | None:
    owners = known.get("ownerReferences") or ()
    return next((o["uid"] for o in owners if (o.get("apiVersion"), o.get("kind")) == (version, kind)), None)


def _reference(version: str, kind: str, owner: Meta) -> Json:
    return {
        "apiVersion": version,
        "kind": kind,
        "name": owner.name,
        "uid": owner.uid,
        "controller": True,
        "blockOwnerDeletion": False,
    }
