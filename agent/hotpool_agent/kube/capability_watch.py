"""Watches the node's own NodeCapability, so that a report that vanished is sent again at once (requirement B8).

Decides nothing.
"""

from collections.abc import Callable
from typing import Any

from hotpool_agent.kube.node_resources import NodeResources
from hotpool_agent.kube.watch_loop import WatchLoop
from hotpool_agent.settings import Settings


class CapabilityWatch(WatchLoop):
    """A stream that ends is opened again with a list first."""

    def __init__(
        self, cluster: NodeResources, settings: Settings, observe: Callable[[dict[str, Any] | None], None]
    ) -> None:
        super().__init__("NodeCapability", settings)
        self._cluster = cluster
        self._observe = observe

    async def follow(self) -> None:
        """Hear what is stored, now and after each change."""
        async for capability in self._cluster.watch_capability():
            self.problem = None
            self._observe(capability)
