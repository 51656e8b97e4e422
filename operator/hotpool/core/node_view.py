"""Construction and comparison of node views, so that a change marks only the pools that it can affect (D3).

Pure.
"""

from collections.abc import Mapping
from dataclasses import replace

from hotpool.api.meta import AGENT_PREFIX
from hotpool.core import languages
from hotpool.core.capacity import limits_of
from hotpool.core.declared_words import ServiceWords
from hotpool.core.hardware import Hardware
from hotpool.core.language_pairs import NO_PAIRS
from hotpool.core.model import KubeNode, Node, NodeView


def with_report(before: NodeView, node: Node) -> NodeView:
    """Return the view with a newer node. Derive its language pairs again only if its offers changed."""
    known = before.node.report
    if node.report is None:
        return replace(before, node=node, pairs=NO_PAIRS, semantic_pairs=NO_PAIRS)
    if known is not None and known.offers == node.report.offers and before.node is not node:
        return replace(before, node=node)
    pairs = languages.pairs(node.report, semantic=False)
    return replace(before, node=node, pairs=pairs, semantic_pairs=languages.pairs(node.report, semantic=True))


def with_silence_of(view: NodeView, other: NodeView) -> NodeView:
    """Return the view with all fields that depend on silence taken from another one."""
    if silence_inputs(view) == silence_inputs(other):
        return view
    return replace(
        view,
        liveness=other.liveness,
        seen=other.seen,
        expired=other.expired,
        overdue=other.overdue,
        shut_down=other.shut_down,
    )


def silence_inputs(view: NodeView) -> tuple[object, ...]:
    """Return the fields that depend on silence."""
    return (view.liveness, view.seen, view.expired, view.overdue, view.shut_down)


def merge_kube_node(view: NodeView, kube: KubeNode | None) -> NodeView:
    """Return the view with cordon, labels and health of the v1 Node of the same name.

    A label of the NodeCapability overrides one of the v1 Node. Labels with the agents' prefix are ignored on a v1 Node,
    because only the agent may set them.
    """
    if kube is None and view.kube is None:
        return view
    inherited = {key: value for key, value in kube.labels.items() if not key.startswith(AGENT_PREFIX)} if kube else {}
    return replace(
        view,
        kube=kube,
        joined_labels=inherited | dict(view.node.labels) if inherited else None,
        overdue=view.overdue and (kube is None or kube.health.ready == "Unknown"),
        shut_down=_shut_down(view, kube),
    )


def _shut_down(view: NodeView, kube: KubeNode | None) -> bool | None:
    """Return True if a shutdown is the last that the kubelet reported, None if that is not known.

    A machine that is off cannot report. Then the node controller sets Ready=Unknown, whose message is its own.
    """
    if kube is None:
        return view.shut_down
    silent = kube.health.ready == "Unknown" and (view.kube is None or view.kube.meta.uid == kube.meta.uid)
    return view.shut_down if silent else kube.health.shutting_down


def kube_node_inputs(kube: KubeNode) -> tuple[object, ...]:
    """Return the fields of a v1 Node that membership or ownership depends on."""
    return (kube.meta.uid, kube.unschedulable, kube.labels, kube.health, kube.addresses)


def report_version(node: Node) -> tuple[str, int, int] | None:
    """Return a value that differs for each report of a node; None without a report."""
    report = node.report
    return (report.session, report.epoch, report.sequence) if report else None


def types(view: NodeView) -> frozenset[str]:
    """Return the types that the node reports, ready or not."""
    return frozenset(view.node.report.types) if view.node.report else frozenset()


def declared(view: NodeView) -> frozenset[ServiceWords]:
    """Return the words that the node's services declare, in whatever state they are."""
    return view.node.report.declared if view.node.report else frozenset()


def hardware(view: NodeView) -> Hardware | None:
    """Return the hardware that the node reports."""
    return view.node.report.hardware if view.node.report else None


def pool_inputs(view: NodeView) -> tuple[object, ...]:
    """Return the inputs that every pool depends on."""
    report, node = view.node.report, view.node
    leaving = report is not None and report.leaving
    drain = (node.drain, view.drained_by_agent, view.cordoned)
    kube = (view.kube_problem, view.shutdown)
    return (view.liveness, view.expired, drain, view.labels, report is None, leaving, kube)


def only_silence_differs(before: NodeView, after: NodeView) -> bool:
    """Return True if no requirement of any pool but the heartbeat can have another result."""
    same_node = before.node is after.node and before.kube is after.kube and before.shutdown == after.shutdown
    return same_node and before.endpoints is after.endpoints


def status_inputs(view: NodeView) -> tuple[object, ...]:
    """Return the inputs of the node's conditions, of its owner reference and of its capability in Redis.

    `kube_unknown` is one because an agent may have been silent for long when the v1 Node's Ready becomes Unknown.
    """
    report, node = view.node.report, view.node
    known = (node.problem, node.conditions, node.meta.generation, node.owner, node.ignored_commands)
    own = (view.seen, report.types if report else None, *known)
    use = (report.numbers, report.uncounted) if report and view.draining else ()
    addresses = (view.endpoints, view.address_problems)
    return (*pool_inputs(view), *own, use, node.drain_status, view.kube_unknown, *addresses, limits_of(view))


def changed_types(before: NodeView, after: NodeView) -> set[str]:
    """Return the types whose readiness, reason, services, offers or endpoints differ."""
    old, new = before.node.report, after.node.report
    if old is None or new is None:
        return set()
    return types_with_other_endpoints(before, after) | {
        type_
        for type_ in {*old.types, *new.types}
        if _of_type(old.types, type_) != _of_type(new.types, type_) or old.offers.get(type_) != new.offers.get(type_)
    }


def types_with_other_endpoints(before: NodeView, after: NodeView) -> set[str]:
    """Return the types of which an endpoint appeared, changed or went."""
    if before.endpoints is after.endpoints:
        return set()
    old, new = before.endpoints, after.endpoints
    changed = (service for service in {*old, *new} if old.get(service) != new.get(service))
    return {found[service].type for service in changed for found in (old, new) if service in found}


def _of_type(types_: Mapping[str, object], type_: str) -> object:
    return types_.get(type_)
