"""Loop of a watch at the API server: one watch after the other, with pauses between (requirement B9).

Must not know the watched kind.
"""

import asyncio
from abc import ABC, abstractmethod
from typing import Final

import structlog

from hotpool.common.backoff import Backoff
from hotpool_agent.kube.errors import KubeError, internal_error
from hotpool_agent.settings import Settings

_LOG: Final = structlog.get_logger(__name__)


class WatchLoop(ABC):
    """Base of a watch. `problem` is the present error; `name` is for the log."""

    def __init__(self, name: str, settings: Settings) -> None:
        self.problem: str | None = None
        self._name = name
        self._interval = settings.interval
        self._backoff = Backoff(settings.backoff_seconds, settings.interval)

    @abstractmethod
    async def watch_once(self) -> None:
        """Run one watch from its opening to its end. Raises KubeError. Must clear `problem` when data arrive."""

    async def run(self) -> None:
        """Watch until cancelled."""
        while True:
            pause = 0.0
            opened = self.clock()
            try:
                await self.watch_once()
            except KubeError as error:
                if self.problem != str(error):
                    _LOG.warning("not watching", what=self._name, error=str(error))
                self.problem, pause = str(error), error.retry_after
            except Exception as error:  # noqa: BLE001 - an object that cannot be processed must not end the agent
                problem = internal_error(error)
                if self.problem != problem:
                    _LOG.error("not watching because of an internal error", what=self._name, exc_info=error)
                self.problem = problem
            # A watch that ends as soon as it is opened, as behind a broken proxy, must not be reopened without a pause.
            if self.clock() - opened >= self._interval:
                self._backoff.reset()
            await asyncio.sleep(self._backoff.pause(pause))

    @staticmethod
    def clock() -> float:
        """Return seconds of a monotonic clock."""
        return asyncio.get_running_loop().time()
