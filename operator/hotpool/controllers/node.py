"""Reconciling of one node in Kubernetes (requirements C4 to C6). Must not decide about liveness or start a task."""

from collections.abc import Collection, Sequence
from math import inf
from typing import Final

from hotpool.api.meta import MAX_CONDITIONS, Condition
from hotpool.controllers.context import ControllerContext
from hotpool.controllers.result import Result
from hotpool.core.conditions import set_conditions
from hotpool.core.drain import plan_drain
from hotpool.core.model import Kind, NodeView
from hotpool.core.node_liveness import NodeLivenessTracker
from hotpool.core.planning.diff import conditions_differ
from hotpool.core.planning.pool_plan import plan_node
from hotpool.observability.metrics import TRANSITIONS

DRAIN_WRITE_SECONDS: Final = 2.0
"""Shortest time between two writes of the progress of one drain."""


class NodeController:
    """Reconciler of nodes."""

    def __init__(self, context: ControllerContext) -> None:
        self._context = context
        self._drain_written: dict[str, float] = {}
        """Draining node → time of the last write of its status (monotonic seconds)."""

    def reset_pacing(self, name: str) -> None:
        """Do nothing: writes of nodes have no rate limit."""

    async def reconcile(self, name: str) -> Result:
        """Write conditions, then the owner reference; or delete an expired node."""
        tracker = self._context.cache.nodes.get(name)
        requeue_at = await self._write_status(name, tracker.view) if tracker else None
        if tracker and tracker.view.expired:
            await self._clean_up(name, tracker)
        elif tracker:
            await self._set_owner(name, tracker)
        elif name in self._context.cache.leases.orphaned:
            await self._delete_lease(name)
        return Result(requeue_at=requeue_at)

    async def _write_status(self, name: str, view: NodeView) -> float | None:
        """Write conditions and `status.drain` if they differ. Return the time at which a paced write is due.

        A change of the drain alone is written at most every 2 s (requirement C5).
        """
        node, now, timestamp = view.node, self._context.clock(), self._context.clock.timestamp()
        drain, drained = plan_drain(view, self._context.drains.get(name), timestamp)
        conditions = plan_node(view, timestamp).conditions
        others_differ = conditions_differ(node.conditions, conditions)
        if drained:
            before = {kind: (stored.status, stored.since) for kind, stored in node.conditions.items()}
            conditions += set_conditions([drained], before, node.meta.generation, timestamp)
        conditions = _with_room(conditions, node.conditions)
        if drain is None:
            self._drain_written.pop(name, None)
        if drain == node.drain_status and not conditions_differ(node.conditions, conditions):
            return None
        due = self._drain_written.get(name, -inf) + DRAIN_WRITE_SECONDS
        if now < due and not others_differ:
            return due
        written = await self._context.kube.write_node_status(node.meta, conditions, drain)
        if drain:
            self._drain_written[name] = now
        if others_differ:
            TRANSITIONS.labels(conditions[0].reason).inc()
        self._context.recorder.node_conditions(node, conditions)
        self._context.apply_response(Kind.NODE, written)
        return None

    async def _clean_up(self, name: str, tracker: NodeLivenessTracker) -> None:
        """Delete the Lease of a node silent for 600 s, and its NodeCapability unless people edited it (C4)."""
        node = tracker.view.node
        if await self._delete_lease(name):
            self._context.recorder.node_deleted(node.meta, "its Lease was")
        if node.user_fields_empty and tracker.view.expired:  # a heartbeat may have arrived meanwhile
            await self._context.kube.delete(Kind.NODE, node.meta)
            self._context.recorder.node_deleted(node.meta, "its Lease and its NodeCapability were")
            self._context.dirty.update(self._context.cache.delete(Kind.NODE, name, node.meta.uid))

    async def _set_owner(self, name: str, tracker: NodeLivenessTracker) -> None:
        """Make the v1 Node of the same name own the NodeCapability, so that the garbage collector deletes both.

        Confirm the Node's uid with a GET first. A stale watch could name a deleted Node, and the garbage collector
        would then delete the NodeCapability of a live agent. An existing reference stays, also to a deleted Node: the
        garbage collector acts on it, the agent reports again, and the current Node owns the new object.
        """
        node, kube_node = tracker.view.node, self._context.cache.kube_nodes.get(name)
        if kube_node is None or node.owner is not None:
            return
        confirmed, dirty = await self._context.resync.confirm(Kind.KUBE_NODE, name, kube_node.meta.uid)
        self._context.dirty.update(dirty)
        if confirmed:
            self._context.apply_response(Kind.NODE, await self._context.kube.set_owner(node.meta, kube_node.meta))

    async def _delete_lease(self, name: str) -> bool:
        """Delete the Lease unless it was renewed meanwhile. Return False if no Lease is known."""
        lease = self._context.cache.leases.get(name)
        if not lease or not lease.uid:
            return False
        await self._context.kube.delete_lease(lease)
        self._context.cache.leases.delete(lease)
        return True


def _with_room(conditions: Sequence[Condition], stored: Collection[str]) -> tuple[Condition, ...]:
    """Return Ready and Draining, which come first, and the others that fit beside the stored ones of other clients."""
    room = MAX_CONDITIONS - len({*stored, *(condition.type for condition in conditions[:2])})
    new = [condition.type for condition in conditions[2:] if condition.type not in stored]
    surplus = new[max(room, 0) :]
    return tuple(condition for condition in conditions if condition.type not in surplus)
