"""Renewal of the node's Lease every H, independent of reports (requirement B8). I/O through `node_resources`.

Renews only while a report of the current epoch is accepted. Starts at a random moment of the first H, so that the
renewals of a fleet that starts together are spread.
"""

import asyncio
import random
from typing import Final

import structlog

from hotpool.common.backoff import Backoff
from hotpool_agent.kube.errors import KubeError, MissingError, internal_error
from hotpool_agent.kube.node_resources import NodeResources
from hotpool_agent.metrics import Metrics
from hotpool_agent.reporting.reporter import Reporter
from hotpool_agent.settings import Settings

_LOG: Final = structlog.get_logger(__name__)
_LEASE_INTERVALS: Final = 3


class Heartbeat:
    """The only writer of the node's Lease."""

    def __init__(
        self,
        resources: NodeResources,
        settings: Settings,
        reporter: Reporter,
        metrics: Metrics,
    ) -> None:
        self.problem: str | None = None
        self._resources = resources
        self._interval = settings.interval
        self._backoff = Backoff(settings.backoff_seconds, settings.interval)
        self._reporter = reporter
        self._metrics = metrics

    async def run(self) -> None:
        """Renew the Lease until cancelled."""
        await self._reporter.wait_accepted()
        await asyncio.sleep(random.uniform(0, self._interval))  # noqa: S311 - spreads load, guards no secret
        while True:
            await self._reporter.wait_accepted()
            try:
                await self._renew()
            except KubeError as error:
                if self.problem != str(error):
                    _LOG.warning("Lease not renewed", error=str(error))
                self.problem = str(error)
                await asyncio.sleep(self._backoff.pause(error.retry_after))
                continue
            except Exception as error:  # noqa: BLE001 - must not end the agent
                if self.problem != internal_error(error):
                    _LOG.error("Lease not renewed because of an internal error", exc_info=error)
                self.problem = internal_error(error)
                await asyncio.sleep(self._backoff.pause())
                continue
            self.problem = None
            self._backoff.reset()
            await asyncio.sleep(self._interval)

    async def _renew(self) -> None:
        holder, duration = self._reporter.holder(), _LEASE_INTERVALS * self._interval
        if holder is None:
            return
        with self._metrics.heartbeat():
            try:
                await self._resources.renew_lease(holder, duration)
            except MissingError:
                await self._resources.ensure_lease()
                await self._resources.renew_lease(holder, duration)
