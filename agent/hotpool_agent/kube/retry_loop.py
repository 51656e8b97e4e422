"""Loop of requests to the API server, such as a watch: an attempt after the other, with pauses (requirement B9).

Must not know what is requested.
"""

import asyncio
from abc import ABC, abstractmethod
from typing import ClassVar, Final

import structlog

from hotpool.common.backoff import Backoff
from hotpool_agent.kube.errors import KubeError, internal_error
from hotpool_agent.settings import Settings

_LOG: Final = structlog.get_logger(__name__)


class RetryLoop(ABC):
    """Base of a loop."""

    failure: ClassVar[str] = "not watching"
    """Text for the log."""
    subject: str | None = None
    """Object of the loop, for the log."""

    def __init__(self, settings: Settings) -> None:
        self.problem: str | None = None
        """Reason of the last failure; None after a success."""
        self.interval = settings.interval
        self._backoff = Backoff(settings.backoff_seconds, settings.interval)

    @abstractmethod
    async def attempt(self) -> None:
        """Run until a failure, or the end of a watch. Raises KubeError. Must clear `problem` at each success."""

    async def run(self) -> None:
        """Repeat attempts until cancelled."""
        while True:
            pause = 0.0
            begun = self.clock()
            try:
                await self.attempt()
            except Exception as error:  # noqa: BLE001 - an object that cannot be processed must not end the agent
                self.problem = log_failure(self.failure, error, self.problem, self.subject)
                pause = error.retry_after if isinstance(error, KubeError) else 0.0
            # A watch that ends as soon as it is opened, as behind a broken proxy, must not be reopened without a pause.
            if self.clock() - begun >= self.interval:
                self._backoff.reset()
            await asyncio.sleep(self._backoff.pause(pause))

    @staticmethod
    def clock() -> float:
        """Return seconds of a monotonic clock."""
        return asyncio.get_running_loop().time()


def log_failure(failure: str, error: Exception, known: str | None, subject: str | None = None) -> str:
    """Log a failure unless its text is the `known` one, and return the text."""
    what = {"what": subject} if subject else {}
    if isinstance(error, KubeError):
        if (text := str(error)) != known:
            _LOG.warning(failure, error=text, **what)
    elif (text := internal_error(error)) != known:
        _LOG.error(f"{failure} because of an internal error", exc_info=error, **what)
    return text
