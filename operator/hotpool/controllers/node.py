"""A node, from its view to Redis, its conditions and its owner, and to its end (requirements C4, C6, E3).

Decides nothing and starts no task of its own.
"""

from hotpool.controllers.context import ControllerContext
from hotpool.core.model import Key, Kind
from hotpool.core.node_history import NodeHistory
from hotpool.core.node_liveness import NodeLivenessTracker
from hotpool.core.planning.diff import conditions_differ
from hotpool.core.planning.pool_plan import NodePlan, plan_node
from hotpool.observability.metrics import TRANSITIONS
from hotpool.projection.documents import NodeDocument
from hotpool.projection.history import encoded
from hotpool.projection.publisher import Publisher


class NodeController:
    """What is done for one node."""

    def __init__(self, fleet: ControllerContext) -> None:
        self._fleet = fleet
        self._transitions = NodeHistory()

    async def reconcile(self, key: Key) -> None:
        """Redis first, then conditions; then its owner, or what there is of a node that is silent for too long goes."""
        record = self._fleet.cache.nodes.get(key.name)
        plan = plan_node(record.view, self._fleet.clock.timestamp()) if record else None
        if self._fleet.publisher:
            await self._project_node(self._fleet.publisher, key.name, record, plan)
        if record and plan and conditions_differ(record.view.node.conditions, plan.conditions):
            node = record.view.node
            written = await self._fleet.kube.write_node_conditions(node.meta, plan.conditions)
            TRANSITIONS.labels(plan.conditions[0].reason).inc()
            self._fleet.recorder.node_conditions(node, plan.conditions)
            touched = self._fleet.apply_response(Kind.NODE, written)  # it may hold a report that no watch has brought yet
            self._fleet.mark(touched, None)
        if record and record.view.expired:
            await self._clean_up(key.name, record)
        elif record:
            await self._give_owner(key.name, record)
        elif key.name in self._fleet.cache.leases.orphaned:
            await self._delete_lease(key.name)

    async def _project_node(
        self, mirror: Publisher, name: str, record: NodeLivenessTracker | None, plan: NodePlan | None
    ) -> None:
        """What Redis shall say of a node, and the last things that changed about it (requirements E3, F2)."""
        if record is None or plan is None or record.view.expired:
            self._transitions.forget(name)
            await mirror.delete_node(name)
            return
        node, ready = record.view.node, plan.conditions[0]
        stored = node.conditions.get("Ready")
        types = node.report.types if node.report else {}
        step = self._transitions.record(
            name, ready.reason, types, stored.reason if stored else None, self._fleet.clock.timestamp()
        )
        happened = encoded(step) if step else None
        if plan.types is None:
            await mirror.withdraw_node(name, happened)
        else:
            shown = tuple((type_, t.ready, t.reason, t.services) for type_, t in sorted(plan.types.items()))
            await mirror.publish_node(NodeDocument(name, shown), happened)

    async def _clean_up(self, name: str, record: NodeLivenessTracker) -> None:
        """The node was silent for 600 s: its Lease goes, and its resource if people wrote nothing into it (C4)."""
        node = record.view.node
        if await self._delete_lease(name):
            self._fleet.recorder.node_deleted(node.meta, "its Lease was")
        if node.user_fields_empty and record.view.expired:  # it may have beaten meanwhile
            await self._fleet.kube.delete_node(node.meta)
            self._fleet.recorder.node_deleted(node.meta, "its Lease and its NodeCapability were")
            self._fleet.mark(self._fleet.cache.delete(Kind.NODE, name, node.meta.uid), None)

    async def _give_owner(self, name: str, record: NodeLivenessTracker) -> None:
        """A v1 Node takes the NodeCapability of its name along, whoever deletes it and whether we run then or not.

        The uid is confirmed before: of a Node that is gone, as a stream that is behind would have it, the garbage
        collector would delete what a live agent reports. A reference that is there stays, also that to a Node gone: the
        garbage collector follows it, the agent reports again, and the Node of that name is the owner of what is new.
        """
        node, kube = record.view.node, self._fleet.cache.kube_nodes.get(name)
        if kube is None or node.owner is not None:
            return
        if await self._fleet.confirm(Kind.KUBE_NODE, name, kube.meta.uid):
            written = await self._fleet.kube.set_owner(node.meta, kube.meta)
            self._fleet.mark(self._fleet.apply_response(Kind.NODE, written), None)

    async def _delete_lease(self, name: str) -> bool:
        """Whether there was one, as it was last seen; one renewed meanwhile stays."""
        lease = self._fleet.cache.leases.get(name)
        if not lease or not lease.uid:
            return False
        await self._fleet.kube.delete_lease(lease)
        self._fleet.cache.leases.delete(lease)
        return True
