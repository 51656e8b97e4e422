"""Renewal of the node's Lease every H, independent of reports (requirement B8). I/O through `node_resources`.

Renews only while a report of the current epoch is accepted. Starts at a random moment of the first H, so that the
renewals of a fleet that starts together are spread.
"""

import asyncio
import random
from typing import Final

from hotpool_agent.kube.errors import MissingError
from hotpool_agent.kube.node_resources import NodeResources
from hotpool_agent.kube.retry_loop import RetryLoop
from hotpool_agent.metrics import Metrics
from hotpool_agent.reporting.reporter import Reporter
from hotpool_agent.settings import Settings

_LEASE_INTERVALS: Final = 3


class Heartbeat(RetryLoop):
    """The only writer of the node's Lease."""

    failure = "Lease not renewed"

    def __init__(self, resources: NodeResources, settings: Settings, reporter: Reporter, metrics: Metrics) -> None:
        super().__init__(settings)
        self._resources = resources
        self._reporter = reporter
        self._metrics = metrics

    async def run(self) -> None:
        """Renew the Lease until cancelled."""
        await self._reporter.wait_accepted()
        await asyncio.sleep(random.uniform(0, self.interval))  # noqa: S311 - spreads load, guards no secret
        await super().run()

    async def attempt(self) -> None:
        """Renew the Lease until a renewal fails. Raises KubeError."""
        while True:
            await self._reporter.wait_accepted()
            if holder := self._reporter.holder():
                with self._metrics.heartbeat():
                    await self._renew(holder, _LEASE_INTERVALS * self.interval)
            self.problem = None
            await asyncio.sleep(self.interval)

    async def _renew(self, holder: str, duration: int) -> None:
        try:
            await self._resources.renew_lease(holder, duration)
        except MissingError:
            await self._resources.ensure_lease()
            await self._resources.renew_lease(holder, duration)
