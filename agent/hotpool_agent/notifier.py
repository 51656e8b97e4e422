"""Waiting for conditions that change in the event loop. knows nothing of either."""

import asyncio
from collections.abc import Callable


class Notifier:
    """Wakes all that wait each time something happened."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def notify(self) -> None:
        """Something happened."""
        self._event.set()
        self._event = asyncio.Event()

    async def wait_for(self, condition: Callable[[], bool]) -> None:
        """Return when the condition holds; it is looked at now and after each beat."""
        while not condition():
            await self._event.wait()
