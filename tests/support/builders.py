"""Builders of wire dicts (`*_object`) and core values, with overrides, so that a test states only what matters."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from hotpool.api.capability import Report as WireReport
from hotpool.api.generator import GeneratorStatus
from hotpool.api.meta import API_VERSION, ELECTION_LEASE, LEASE_LABEL, LEASE_PREFIX, POOL_LABEL, PROBE_LEASE
from hotpool.api.pool import PoolSpec, PoolStatus
from hotpool.api.slice import MemberState
from hotpool.core import languages
from hotpool.core.cluster_cache import ClusterCache
from hotpool.core.model import (
    Generator,
    Heartbeat,
    Kind,
    KubeNode,
    Liveness,
    Member,
    Meta,
    Node,
    NodeView,
    Observed,
    Pool,
    Rule,
    ServiceOffer,
    Slice,
    TypeState,
)
from hotpool.core.model import Report as CoreReport
from hotpool.kube.decode import DecodeError, decode, decode_lease

Json = dict[str, Any]

H = 15.0
"""Heartbeat interval in seconds of the reports and Leases of these builders."""


def service(id_: str, type_: str, **more: Any) -> Json:
    """Return a Running service of a report, as on the wire."""
    return {"id": id_, "type": type_, "state": "Running", **more}


def stopped(id_: str, type_: str, **more: Any) -> Json:
    """Return a Stopped service of a report, as on the wire."""
    return service(id_, type_, **more) | {"state": "Stopped"}


def report(*services: Mapping[str, Any], **more: Any) -> Json:
    """Return a report as on the wire, with the capabilities that follow from its services."""
    types = {item["type"] for item in services}
    running = {type_: [s["id"] for s in services if s["type"] == type_ and s["state"] == "Running"] for type_ in types}
    capabilities = [
        {"type": type_, "ready": bool(ids), "reason": None if ids else "Stopped", "services": ids}
        for type_, ids in sorted(running.items())
    ]
    head = {"schemaVersion": 1, "agentVersion": "t", "instance": "i", "session": "s", "epoch": 1, "sequence": 1}
    return {**head, "time": "t", "services": list(services), "capabilities": capabilities, **more}


def speech(*codes: str, **more: Any) -> Json:
    """Return the report of a node that translates between all these languages; `more` as for `report`."""
    rule = {"kind": "any_to_any", "languages": list(codes)}
    services = [service(type_, type_, languages=list(codes)) for type_ in ("asr", "tts")]
    return report(*services, service("nmt", "nmt", rules=[rule]), **more)


def _object(kind: str, name: str, version: int, generation: int, **metadata: Any) -> Json:
    known = {"name": name, "uid": f"uid-{name}", "resourceVersion": str(version), "generation": generation}
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": {**known, **metadata}}


def _owner(kind: str, name: str, uid: str) -> list[Json]:
    return [{"apiVersion": API_VERSION, "kind": kind, "name": name, "uid": uid, "controller": True}]


def _annotations(*, paused: bool) -> Json:
    return {"annotations": {"hotpool.dev/paused": "true"}} if paused else {}


def node_object(name: str, content: Json | None = None, *, version: int = 1, generation: int = 1, **more: Any) -> Json:
    """Return a NodeCapability; `more`: uid, labels, drain, addresses, limits, conditions."""
    metadata = {"uid": more.get("uid", f"uid-{name}"), "labels": more.get("labels", {})}
    status = {"report": content, "conditions": more.get("conditions", [])}
    spec: Json = {"drain": True} if more.get("drain") else {}
    spec |= {key: list(more[key]) for key in ("addresses", "limits") if more.get(key)}
    body = {"spec": spec, "status": status}
    return _object("NodeCapability", name, version, generation, **metadata) | body


def kube_node_object(name: str, *, version: int = 1, cordoned: bool = False, **more: Any) -> Json:
    """Return a v1 Node, with some fields that the operator ignores.

    `more`: uid, labels, ready, message, taints, addresses.

    `ready`: status of the condition Ready; None: no condition. `taints`: keys.
    """
    metadata = {"name": name, "uid": more.get("uid", f"uid-kube-{name}"), "resourceVersion": str(version)}
    taints = [{"key": key, "effect": "NoExecute"} for key in more.get("taints", ())]
    spec: Json = {"podCIDR": "10.0.0.0/24"} | ({"unschedulable": True} if cordoned else {})
    spec |= {"taints": taints} if taints else {}
    ready, message = more.get("ready", "True"), more.get("message", "")
    condition_ = {"type": "Ready", "status": ready, "lastHeartbeatTime": "t", "reason": "Kubelet", "message": message}
    addresses = [{"type": "InternalIP", "address": ip} for ip in more.get("addresses", ())]
    status: Json = {"conditions": [condition_] if ready else [], "addresses": addresses}
    status["addresses"].append({"type": "Hostname", "address": "127.0.0.1"})  # a name, whatever it looks like
    labels = {"labels": more.get("labels", {})}
    return {"apiVersion": "v1", "kind": "Node", "metadata": metadata | labels, "spec": spec, "status": status}


def condition(type_: str = "Ready", status: str = "True", reason: str = "Live", **more: Any) -> Json:
    """Return a condition as the operator writes it on an object of generation 1."""
    return {
        "type": type_,
        "status": status,
        "reason": reason,
        "message": "the agent reports and beats" if reason == "Live" else "",
        "observedGeneration": 1,
        "lastTransitionTime": "t",
        **more,
    }


def pool_object(name: str, *, version: int = 1, generation: int = 1, paused: bool = False, **spec: Any) -> Json:
    """Return a NodePool; `spec` in wire names."""
    return _object("NodePool", name, version, generation, **_annotations(paused=paused)) | {"spec": spec}


def slice_object(pool_name: str, index: int, *nodes: str, version: int = 1, term: int = 1, **more: Any) -> Json:
    """Return a NodePoolSlice with Ready members; `more`: name, uid (of the pool), members."""
    metadata = {
        "labels": {POOL_LABEL: pool_name},
        "ownerReferences": _owner("NodePool", pool_name, _uid(pool_name, more)),
    }
    members = [{"node": node_name, "state": "Ready", "since": "t"} for node_name in nodes]
    name = more.get("name", f"{pool_name}-{index}")
    body = {"term": term, "members": more.get("members", members)}
    return _object("NodePoolSlice", name, version, 1, **metadata) | body


def _uid(name: str, more: Mapping[str, Any]) -> str:
    return str(more.get("uid", f"uid-{name}"))


def generator_object(name: str, *, version: int = 1, generation: int = 1, paused: bool = False, **spec: Any) -> Json:
    """Return a NodePoolGenerator; the default rule is one pool per directed language pair."""
    spec = {"rule": {"languagePairs": {}}, **spec}
    return _object("NodePoolGenerator", name, version, generation, **_annotations(paused=paused)) | {"spec": spec}


def _decoded(kind: Kind, body: Json) -> Observed:
    found = decode(kind, body)
    assert not isinstance(found, DecodeError), found
    return found


def node(name: str, content: Json | None = None, *, version: int = 1, **more: Any) -> Node:
    """Return a decoded NodeCapability; `more` as for `node_object`."""
    found = _decoded(Kind.NODE, node_object(name, content, version=version, **more))
    assert isinstance(found, Node)
    return found


def kube_node(name: str, *, version: int = 1, **more: Any) -> KubeNode:
    """Return a decoded v1 Node; `more` as for `kube_node_object`."""
    found = _decoded(Kind.KUBE_NODE, kube_node_object(name, version=version, **more))
    assert isinstance(found, KubeNode)
    return found


def view(content: Json | None = None, liveness: Liveness = Liveness.LIVE, **more: Any) -> NodeView:
    """Return the node `n` as input of matching; `more` as for `node_object`."""
    seen = node("n", content, **more)
    if seen.report is None:
        return NodeView(seen, liveness)
    plain, repaired = (languages.pairs(seen.report, semantic=semantic) for semantic in (False, True))
    return NodeView(seen, liveness, pairs=plain, semantic_pairs=repaired)


def offer(
    service_id: str, type_: str, *codes: str, rules: Iterable[Rule] = (), **attributes: Iterable[str]
) -> ServiceOffer:
    """Return a service that counts."""
    values = {key: frozenset(value) for key, value in attributes.items()}
    return ServiceOffer(service_id, type_, frozenset(codes), tuple(rules), values)


def core_report(*offers: ServiceOffer, **more: Any) -> CoreReport:
    """Return a report as a core value, of services that all count."""
    types: dict[str, tuple[ServiceOffer, ...]] = {}
    for item in offers:
        types[item.type] = (*types.get(item.type, ()), item)
    ready = {type_: TypeState(ready=True, services=tuple(o.service for o in found)) for type_, found in types.items()}
    head: Json = {"instance": "i", "session": "s", "epoch": 1, "sequence": 1, "time": "t", "interval": H}
    return CoreReport(**{**head, "types": ready, "offers": types, **more})


def pool(name: str, *, version: int = 1, generation: int = 1, **spec: Any) -> Pool:
    """Return a pool; `spec` in wire names, and paused, status, owner, uid, problem of the core value."""
    core = {key: spec.pop(key) for key in ("paused", "status", "owner", "problem") if key in spec}
    meta = Meta(name, spec.pop("uid", f"uid-{name}"), version, generation)
    if unknown := spec.keys() - {field.alias for field in PoolSpec.model_fields.values()}:
        raise TypeError(f"a pool's spec has no {', '.join(sorted(unknown))}")
    return Pool(meta, PoolSpec.model_validate(spec), **{"status": PoolStatus(), **core})


def slice_(pool_name: str, index: int, *nodes: str, version: int = 1, **more: Any) -> Slice:
    """Return a decoded NodePoolSlice; arguments as for `slice_object`."""
    found = _decoded(Kind.SLICE, slice_object(pool_name, index, *nodes, version=version, **more))
    assert isinstance(found, Slice)
    return found


def generator(name: str, *, version: int = 1, **spec: Any) -> Generator:
    """Return a decoded NodePoolGenerator; `spec` in wire names, and paused, generation, status (of the core value)."""
    status = spec.pop("status", GeneratorStatus())
    found = _decoded(Kind.GENERATOR, generator_object(name, version=version, **spec))
    assert isinstance(found, Generator)
    return replace(found, status=status)


def member(name: str, state: MemberState = "Ready", since: str = "t") -> Member:
    """Return a member of a slice."""
    return Member(node=name, state=state, since=since)


def lease(name: str, renewed: str, *, holder: str = "i/1", interval: float | None = H, version: str = "") -> Heartbeat:
    """Return the heartbeat in a node's Lease; the default holder is that of the reports of these builders."""
    duration = None if interval is None else int(3 * interval)
    uid = f"uid-{name}" if version else ""
    found = decode_lease(f"{LEASE_PREFIX}{name}", holder, renewed, duration, uid=uid, version=version)
    assert found
    return found


def election_lease(renewed: str, *, holder: str | None = "operator-1", term: int = 8, **annotations: str) -> Json:
    """Return the election Lease as on the wire. `annotations`: names below hotpool.dev/, with `_` for `-`."""
    written = {f"hotpool.dev/{name.replace('_', '-')}": value for name, value in annotations.items()}
    spec = {"holderIdentity": holder, "leaseTransitions": term, "leaseDurationSeconds": 6, "renewTime": renewed}
    return {"kind": "Lease", "metadata": {"name": ELECTION_LEASE, "annotations": written}, "spec": spec}


def probe_lease(renewed: str) -> Json:
    """Return the probe Lease as on the wire."""
    metadata = {"name": PROBE_LEASE, "labels": {LEASE_LABEL: "true"}}
    return {"kind": "Lease", "metadata": metadata, "spec": {"holderIdentity": "o", "renewTime": renewed}}


def requires(*types: str, **more: Any) -> Json:
    """Return the requirements of a pool in wire names: these types, and `more`."""
    return {"types": [{"type": type_} for type_ in types], **more}


def open_cache() -> ClusterCache:
    """Return a cache whose gate is open, so that each new object counts as created."""
    state = ClusterCache()
    state.gate_open = True
    return state


def valid(content: Json) -> WireReport:
    """Return the report as the API's model."""
    return WireReport.model_validate(content)
