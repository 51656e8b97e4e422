"""Remarks on a node beside the requirements of a pool: drain, silence and the health of its v1 Node (requirement F2).

Pure. Makes no decision: the state of the member comes from `core.matching`.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from hotpool.api.slice import MemberState
from hotpool.core.explain.remedies import NodeFacts
from hotpool.core.kube_node_health import SHUTDOWN_TAINTS
from hotpool.core.model import Liveness, NodeView, Pool


@dataclass(frozen=True, slots=True)
class Remark:
    """Remark beside the requirements: draining, silence, pause, ..."""

    reason: str
    """Reason of a condition of the node, or state of the membership."""
    text: str
    since: str | None = None
    remedies: tuple[str, ...] = ()


def node_remarks(facts: NodeFacts, state: MemberState | None) -> Iterable[Remark]:
    """Yield why the node is not offered as a Ready member. `state`: state of the member by the requirements."""
    yield from _drain_remarks(facts)
    if state == "Suspect":
        yield from _suspect_remarks(facts)


def missing_service(pool: Pool) -> str | None:
    """Return why the pool has no Service although its spec asks for one, as the operator found (requirement D12)."""
    problems = {c.type: c.message for c in pool.status.conditions if c.status == "True"}
    return problems.get("ServiceNotAllowed") or problems.get("ServiceNameTaken")


def _drain_remarks(facts: NodeFacts) -> Iterable[Remark]:
    view, since = facts.view, since_of(facts.view, "Draining")
    if view.node.drain:
        undo = f"undo the drain: set spec.drain to false in nodecapability {facts.name}"
        yield Remark("Draining", "the node is drained (spec.drain): it is offered no new work", since, (undo,))
    if view.drained_by_agent:
        text = "the agent drains the node (report.draining): it is offered no new work"
        yield Remark("Draining", text, since, (f"undo the drain: hotpool-agent undrain on {facts.name}",))
    if view.cordoned:
        text = "the Node is cordoned (spec.unschedulable): it is offered no new work"
        yield Remark("Cordoned", text, since, (f"kubectl uncordon {facts.name}",))


def _suspect_remarks(facts: NodeFacts) -> Iterable[Remark]:
    view = facts.view
    if view.liveness is Liveness.SUSPECT:
        text = "no heartbeat for 3 intervals: the node is offered last"
        since = since_of(view, "Ready", frozenset({"Suspect"}))
        yield Remark("Suspect", text, since, (f"wait for a heartbeat of {facts.name}",))
    if view.kube_problem:
        since = since_of(view, "Ready", frozenset({view.kube_problem}))
        remedy = f"look at the kubelet: kubectl describe node {facts.name}"
        yield Remark(view.kube_problem, f"{view.kube_problem_text}: offered last", since, (remedy,))


def end_of_shutdown(view: NodeView) -> str:
    """Return the remedy for a node whose v1 Node is shut down."""
    name, sign = view.node.meta.name, view.shutdown
    if sign in SHUTDOWN_TAINTS:
        return f"once the machine is up, remove the taint: kubectl taint node {name} {sign}-"
    return f"start the machine; the node returns when the kubelet of {name} reports that it is ready"


def since_of(view: NodeView, condition: str, reasons: frozenset[str] | None = None) -> str | None:
    """Return the last transition time of a node's condition, or None if its reason is not one of `reasons`."""
    stored = view.node.conditions.get(condition)
    if stored is None or (reasons is not None and stored.reason not in reasons):
        return None
    return stored.since or None
