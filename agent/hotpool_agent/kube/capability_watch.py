"""Watch of the node's own NodeCapability, so that a report that vanished is sent again at once (requirement B8).

Must not decide anything.
"""

from collections.abc import Callable
from typing import Any

from hotpool_agent.kube.node_resources import NodeResources
from hotpool_agent.kube.watch_loop import WatchLoop
from hotpool_agent.settings import Settings


class CapabilityWatch(WatchLoop):
    """Watch of one object. After each end of the watch it begins with a list again."""

    def __init__(
        self, resources: NodeResources, settings: Settings, on_change: Callable[[dict[str, Any] | None], None]
    ) -> None:
        super().__init__("NodeCapability", settings)
        self._resources = resources
        self._on_change = on_change

    async def watch_once(self) -> None:
        """Pass on the stored object, now and after each change."""
        async for capability in self._resources.watch_capability():
            self.problem = None
            self._on_change(capability)
