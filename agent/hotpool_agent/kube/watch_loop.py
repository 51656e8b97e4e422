"""Follows something at the API server for ever: one stream at a time, with pauses between (requirement B9).

Base of `own_watch` and of the watch of pods. Must not know what is followed.
"""

import asyncio
from abc import ABC, abstractmethod
from typing import Final

import structlog

from hotpool.common.backoff import Backoff
from hotpool_agent.kube.errors import KubeError
from hotpool_agent.settings import Settings

_LOG: Final = structlog.get_logger(__name__)


class WatchLoop(ABC):
    """What goes wrong is told in `problem`, for as long as it lasts; `name` is for the log."""

    def __init__(self, name: str, settings: Settings) -> None:
        self.problem: str | None = None
        self._name = name
        self._interval = settings.interval
        self._backoff = Backoff(settings.backoff_seconds, settings.interval)

    @abstractmethod
    async def follow(self) -> None:
        """One stream, from its opening to its end. Raises Problem; whoever hears something clears `problem`."""

    async def run(self) -> None:
        """Follow for ever."""
        while True:
            pause = 0.0
            opened = self.clock()
            try:
                await self.follow()
            except KubeError as error:
                if self.problem != str(error):
                    _LOG.warning("not watching", what=self._name, error=str(error))
                self.problem, pause = str(error), error.pause
            # A stream that ends as soon as it is opened, as behind a broken proxy, must not be opened in a hurry.
            if self.clock() - opened >= self._interval:
                self._backoff.reset()
            await asyncio.sleep(self._backoff.pause(pause))

    @staticmethod
    def clock() -> float:
        """Seconds of a monotonic clock."""
        return asyncio.get_running_loop().time()
