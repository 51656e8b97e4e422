"""Watches the node's own NodeCapability, so that a report that vanished is sent again at once (behaviour B8).

Owned by the wiring, which hears what is stored; decides nothing.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final

import structlog

from hotpool_agent.cluster.backoff import Backoff
from hotpool_agent.cluster.problems import Problem
from hotpool_agent.cluster.publish import Cluster
from hotpool_agent.settings import Settings

_LOG: Final = structlog.get_logger(__name__)


class OwnWatch:
    """One stream at a time, for ever."""

    def __init__(self, cluster: Cluster, settings: Settings, observe: Callable[[dict[str, Any] | None], None]) -> None:
        self.problem: str | None = None
        self._cluster = cluster
        self._interval = settings.interval
        self._backoff = Backoff(settings.backoff_seconds, settings.interval)
        self._observe = observe

    async def run(self) -> None:
        """Watch for ever; a stream that ends is opened again with a list first."""
        while True:
            pause = 0.0
            opened = self._clock()
            try:
                async for capability in self._cluster.watch_capability():
                    self.problem = None
                    self._observe(capability)
            except Problem as error:
                if self.problem != str(error):
                    _LOG.warning("not watching", error=str(error))
                self.problem, pause = str(error), error.pause
            # A stream that ends as soon as it is opened, as behind a broken proxy, must not be opened in a hurry.
            if self._clock() - opened >= self._interval:
                self._backoff.reset()
            await asyncio.sleep(self._backoff.pause(pause))

    @staticmethod
    def _clock() -> float:
        return asyncio.get_running_loop().time()
