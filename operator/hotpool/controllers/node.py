"""Reconciling of one node (requirements C4, C6, E3). Must not decide about liveness or start a task."""

from hotpool.controllers.context import ControllerContext
from hotpool.controllers.resync import Resync
from hotpool.core.model import Key, Kind
from hotpool.core.node_history import NodeHistory
from hotpool.core.node_liveness import NodeLivenessTracker
from hotpool.core.planning.diff import conditions_differ
from hotpool.core.planning.pool_plan import NodePlan, plan_node
from hotpool.observability.metrics import TRANSITIONS
from hotpool.projection.documents import NodeDocument
from hotpool.projection.history import encode
from hotpool.projection.publisher import Publisher


class NodeController:
    """Reconciler of nodes."""

    def __init__(self, context: ControllerContext, resync: Resync) -> None:
        self._context = context
        self._resync = resync
        self._history = NodeHistory()

    def reset_pacing(self, key: Key) -> None:
        """Do nothing: writes of nodes have no rate limit."""

    async def reconcile(self, key: Key) -> bool:
        """Write Redis, then conditions, then the owner reference; or delete an expired node. Return True."""
        tracker = self._context.cache.nodes.get(key.name)
        plan = plan_node(tracker.view, self._context.clock.timestamp()) if tracker else None
        if self._context.publisher:
            await self._publish_node(self._context.publisher, key.name, tracker, plan)
        if tracker and plan and conditions_differ(tracker.view.node.conditions, plan.conditions):
            node = tracker.view.node
            written = await self._context.kube.write_node_conditions(node.meta, plan.conditions)
            TRANSITIONS.labels(plan.conditions[0].reason).inc()
            self._context.recorder.node_conditions(node, plan.conditions)
            # The response may hold a report that no watch has delivered yet.
            self._context.mark(self._context.apply_response(Kind.NODE, written), None)
        if tracker and tracker.view.expired:
            await self._clean_up(key.name, tracker)
        elif tracker:
            await self._set_owner(key.name, tracker)
        elif key.name in self._context.cache.leases.orphaned:
            await self._delete_lease(key.name)
        return True

    async def _publish_node(
        self, publisher: Publisher, name: str, tracker: NodeLivenessTracker | None, plan: NodePlan | None
    ) -> None:
        """Write the node's document and its last transition to Redis (requirements E3, F2)."""
        if tracker is None or plan is None or tracker.view.expired:
            self._history.forget(name)
            await publisher.delete_node(name)
            return
        node, ready = tracker.view.node, plan.conditions[0]
        stored = node.conditions.get("Ready")
        reported = node.report.types if node.report else {}
        transition = self._history.record(
            name, ready.reason, reported, stored.reason if stored else None, self._context.clock.timestamp()
        )
        history_entry = encode(transition) if transition else None
        if plan.types is None:
            await publisher.withdraw_node(name, history_entry)
        else:
            types = tuple((type_, t.ready, t.reason, t.services) for type_, t in sorted(plan.types.items()))
            await publisher.publish_node(NodeDocument(name, types), history_entry)

    async def _clean_up(self, name: str, tracker: NodeLivenessTracker) -> None:
        """Delete the Lease of a node silent for 600 s, and its NodeCapability unless people edited it (C4)."""
        node = tracker.view.node
        if await self._delete_lease(name):
            self._context.recorder.node_deleted(node.meta, "its Lease was")
        if node.user_fields_empty and tracker.view.expired:  # a heartbeat may have arrived meanwhile
            await self._context.kube.delete_node(node.meta)
            self._context.recorder.node_deleted(node.meta, "its Lease and its NodeCapability were")
            self._context.mark(self._context.cache.delete(Kind.NODE, name, node.meta.uid), None)

    async def _set_owner(self, name: str, tracker: NodeLivenessTracker) -> None:
        """Make the v1 Node of the same name own the NodeCapability, so that the garbage collector deletes both.

        Confirm the Node's uid with a GET first. A stale watch could name a deleted Node, and the garbage collector
        would then delete the NodeCapability of a live agent. An existing reference stays, also to a deleted Node: the
        garbage collector acts on it, the agent reports again, and the current Node owns the new object.
        """
        node, kube_node = tracker.view.node, self._context.cache.kube_nodes.get(name)
        if kube_node is None or node.owner is not None:
            return
        if await self._resync.confirm(Kind.KUBE_NODE, name, kube_node.meta.uid):
            written = await self._context.kube.set_owner(node.meta, kube_node.meta)
            self._context.mark(self._context.apply_response(Kind.NODE, written), None)

    async def _delete_lease(self, name: str) -> bool:
        """Delete the Lease unless it was renewed meanwhile. Return False if no Lease is known."""
        lease = self._context.cache.leases.get(name)
        if not lease or not lease.uid:
            return False
        await self._context.kube.delete_lease(lease)
        self._context.cache.leases.delete(lease)
        return True
