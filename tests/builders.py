"""Builders of core values with overrides, so that a test states only what matters to it."""

from collections.abc import Mapping
from typing import Any

from hotpool.api.capability import Report as WireReport
from hotpool.api.pool import PoolSpec
from hotpool.core.model import Kind, Meta, Node, Pool
from hotpool.core.state import State
from hotpool.sources.decode import decode


def service(id_: str, type_: str, **more: Any) -> dict[str, Any]:
    """One Running service of a report, as on the wire."""
    return {"id": id_, "type": type_, "state": "Running", **more}


def report(*services: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """A report as on the wire, with the capabilities that follow from its services."""
    types = {item["type"] for item in services}
    running = {type_: [s["id"] for s in services if s["type"] == type_ and s["state"] == "Running"] for type_ in types}
    capabilities = [
        {"type": type_, "ready": bool(ids), "reason": None if ids else "Stopped", "services": ids}
        for type_, ids in sorted(running.items())
    ]
    head = {"schemaVersion": 1, "agentVersion": "t", "instance": "i", "session": "s", "epoch": 1, "sequence": 1}
    return {**head, "time": "t", "services": list(services), "capabilities": capabilities, **more}


def node(name: str, content: dict[str, Any] | None = None, *, version: int = 1, **more: Any) -> Node:
    """A decoded NodeCapability; `more`: uid, labels, drain, conditions."""
    metadata = {"name": name, "uid": more.get("uid", f"uid-{name}"), "resourceVersion": str(version)}
    metadata["labels"] = more.get("labels", {})
    status = {"report": content, "conditions": more.get("conditions", [])}
    body = {"metadata": metadata, "spec": {"drain": more.get("drain", False)}, "status": status}
    decoded = decode(Kind.NODE, body)
    assert isinstance(decoded, Node)
    return decoded


def pool(name: str, *, version: int = 1, generation: int = 1, **spec: Any) -> Pool:
    """A pool with a spec in wire words."""
    return Pool(Meta(name, f"uid-{name}", version, generation), PoolSpec.model_validate(spec))


def open_state() -> State:
    """A state whose gate is open: what appears is new."""
    state = State()
    state.gate_open = True
    return state


def valid(content: dict[str, Any]) -> WireReport:
    """The report as the API's model."""
    return WireReport.model_validate(content)
