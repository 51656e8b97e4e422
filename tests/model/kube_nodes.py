"""The oracle of v1 Nodes: what a Node says of its machine, and how it changes its node (requirement C8).

Naive and pure, over wire objects. Written from the requirements alone.
"""

from typing import Any

Json = dict[str, Any]

OFF_TAINTS = ("node.kubernetes.io/out-of-service", "node.cloudprovider.kubernetes.io/shutdown")
OFF_REASONS = ("NodeShutdown", "NodeOutOfService")
SHUTDOWN = "node is shutting down"


def ready_condition(kube: Json | None) -> Json:
    """Return the condition Ready of a v1 Node, or an empty one."""
    found = ((kube or {}).get("status") or {}).get("conditions") or []
    return next((item for item in found if item["type"] == "Ready"), {})


def is_unknown(kube: Json | None) -> bool:
    """Return True if the node controller has no news from the kubelet."""
    return ready_condition(kube).get("status") == "Unknown"


def announces_shutdown(kube: Json | None) -> bool:
    """Return True if the kubelet says that the machine shuts down."""
    ready = ready_condition(kube)
    return ready.get("status") == "False" and SHUTDOWN in ready["message"]


def has_off_taint(kube: Json) -> bool:
    """Return True if people or the cloud say that the machine is off."""
    return any(taint["key"] in OFF_TAINTS for taint in kube["spec"].get("taints") or ())


def stays_off(before: Json | None, kube: Json, *, off: bool) -> bool:
    """Return True if the last that the kubelet said is a shutdown. `off`: the same, as of the Node before."""
    same = before is None or before["metadata"]["uid"] == kube["metadata"]["uid"]
    return announces_shutdown(kube) or (off and same and is_unknown(kube))


def joined(node: Json, kube: Json | None, *, off: bool) -> Json:
    """Return a NodeCapability with what the v1 Node adds: its labels, a cordon as drain, a shutdown as leaving."""
    if kube is None:
        return node
    own, inherited = node["metadata"].get("labels") or {}, kube["metadata"].get("labels") or {}
    result = {**node, "metadata": {**node["metadata"], "labels": {**inherited, **own}}}
    if kube["spec"].get("unschedulable"):
        result["spec"] = {**(node.get("spec") or {}), "drain": True}
    status = node.get("status") or {}
    if status.get("report") and is_off(kube, off=off):
        result["status"] = {**status, "report": {**status["report"], "leaving": True}}
    return result


def is_off(kube: Json | None, *, off: bool) -> bool:
    """Return True if the machine shuts down or is off. `off`: the last that the kubelet said is a shutdown."""
    return kube is not None and (announces_shutdown(kube) or has_off_taint(kube) or (off and is_unknown(kube)))
