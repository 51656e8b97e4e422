"""Shut-down of the agent in order, or at once after a second signal (requirements A9, A11, B10)."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import structlog

from hotpool_agent.reporting.reporter import Reporter
from hotpool_agent.service_manager import ServiceManager
from hotpool_agent.services.launch import KILL_SECONDS
from hotpool_agent.settings import Settings
from hotpool_agent.state_store import StateStore
from hotpool_agent.stop_signals import StopSignals

CONFIRMATION_SECONDS: Final = 2.0
"""Least time in which the operator confirms a drain."""
_LOG: Final = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ShutDown:
    """End of the services and of the reports."""

    services: ServiceManager
    reporter: Reporter
    store: StateStore
    settings: Settings

    async def run(self, signals: StopSignals) -> None:
        """Shut down in order; after a second signal, kill the services that still run.

        With `onAgentExit: keep`, or when a part of the agent failed, nothing is reported and no service is stopped: the
        next agent adopts the running processes (A11).
        """
        requested = signals.stop.is_set()
        _LOG.info("shutting down", requested=requested, on_agent_exit=self.services.catalogue.on_agent_exit)
        keep = not requested or self.services.catalogue.on_agent_exit == "keep"
        orderly = asyncio.create_task(self._keep_services() if keep else self._stop_services())
        hurried = asyncio.create_task(signals.hurry.wait())
        await asyncio.wait({orderly, hurried}, return_when=asyncio.FIRST_COMPLETED)
        hurried.cancel()
        if not orderly.done():
            orderly.cancel()
            if not keep:
                await self._kill_services()
        await asyncio.gather(orderly, return_exceptions=True)
        await self.services.close()
        if not orderly.cancelled():
            orderly.result()

    async def _keep_services(self) -> None:
        await self.store.flush_within(self.settings.request_seconds)

    async def _stop_services(self) -> None:
        """Drain the node, report `leaving`, stop all services in parallel, then report the last state (B10)."""
        if timeout := self.services.catalogue.drain_timeout_seconds:
            await self._drain(timeout)
        self.services.shut_down()
        with suppress(TimeoutError):
            async with asyncio.timeout(self.settings.announce_seconds):
                await self.reporter.flush()
        await self.services.wait_settled()
        with suppress(TimeoutError):
            async with asyncio.timeout(self.settings.request_seconds if self.reporter.problem is None else 0):
                await self.reporter.flush()
        await self.store.flush_within(self.settings.request_seconds)

    async def _drain(self, seconds: float) -> None:
        """Report the node as draining until the operator confirms that nothing is in use, at most `seconds`."""
        _LOG.info("draining before the stop", timeout_seconds=seconds)
        self.services.begin_drain()
        try:
            async with asyncio.timeout(seconds):
                await self.reporter.flush()
                # A confirmation of an earlier drain may still be stored. That of this one takes at least as long.
                await asyncio.sleep(CONFIRMATION_SECONDS)
                await self.services.node_drain.wait_drained()
        except TimeoutError:
            _LOG.warning("stopping before the drain was confirmed (timeout)", timeout_seconds=seconds)
        self.services.node_drain.finish()

    async def _kill_services(self) -> None:
        _LOG.warning("second signal: killing the services")
        self.services.hasten()
        with suppress(TimeoutError):
            async with asyncio.timeout(KILL_SECONDS):
                await self.services.wait_settled()
                await self.store.flush_within(KILL_SECONDS)
