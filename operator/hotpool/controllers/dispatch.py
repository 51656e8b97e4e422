"""Which phases a key goes through, by its kind."""

from hotpool.controllers.context import ControllerContext
from hotpool.controllers.generator import GeneratorController
from hotpool.controllers.node import NodeController
from hotpool.controllers.pool import PoolController
from hotpool.core.model import Key, Kind


class Controllers:
    """What is done for one key, from the state to both sinks and back."""

    def __init__(self, fleet: ControllerContext) -> None:
        self._pools, self._nodes, self._generators = (
            PoolController(fleet),
            NodeController(fleet),
            GeneratorController(fleet),
        )

    async def run(self, key: Key) -> bool:
        """Whether the key is settled; False where its writes were put off by the pace, which proves nothing."""
        match key.kind:
            case Kind.POOL:
                return await self._pools.reconcile(key)
            case Kind.NODE:
                await self._nodes.reconcile(key)
            case Kind.GENERATOR:
                return await self._generators.reconcile(key)
            case Kind.SLICE | Kind.KUBE_NODE:
                raise ValueError("a slice is reconciled with its pool, a v1 Node with the node of its name")
        return True

    def earliest(self, key: Key, now: float) -> float:
        """When to plan what became dirty (monotonic seconds)."""
        return self._pools.earliest(key, now) if key.kind is Kind.POOL else now

    def forget_pace(self, key: Key) -> None:
        """What was written built on something stale: the next round is due at once."""
        if key.kind is Kind.POOL:
            self._pools.reset_pacing(key)
        elif key.kind is Kind.GENERATOR:
            self._generators.reset_pacing(key)
