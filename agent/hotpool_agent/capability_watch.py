"""Watch of the node's own NodeCapability: commands and drains from the cluster, a vanished report (A2, B8, C5)."""

from hotpool_agent.kube.node_resources import NodeResources
from hotpool_agent.kube.retry_loop import RetryLoop
from hotpool_agent.reporting.commands import parse_intents
from hotpool_agent.reporting.ownership import parse_stored
from hotpool_agent.reporting.reporter import Reporter
from hotpool_agent.service_manager import ServiceManager
from hotpool_agent.settings import Settings


class CapabilityWatch(RetryLoop):
    """Watch of one object. After each end of the watch it begins with a list again."""

    subject = "NodeCapability"

    def __init__(
        self, resources: NodeResources, settings: Settings, reporter: Reporter, services: ServiceManager
    ) -> None:
        super().__init__(settings)
        self._resources = resources
        self._reporter = reporter
        self._services = services

    async def attempt(self) -> None:
        """Pass on the stored report and the commands, now and after each change."""
        async for capability in self._resources.watch_capability():
            self.problem = None
            self._reporter.on_stored_report(parse_stored(capability))
            self._services.apply_intents(parse_intents(capability))
            self._services.node_drain.on_capability(capability)
