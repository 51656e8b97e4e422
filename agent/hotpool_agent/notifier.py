"""Waiting in the event loop for conditions that other tasks change."""

import asyncio
from collections.abc import Callable
from contextlib import suppress


class Notifier:
    """Condition variable for any number of waiting tasks."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def notify(self) -> None:
        """Wake all waiting tasks to test their conditions."""
        self._event.set()
        self._event = asyncio.Event()

    async def wait(self, seconds: float) -> None:
        """Return after the next `notify`, at most after `seconds`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._event.wait()

    async def wait_for(self, condition: Callable[[], bool]) -> None:
        """Return when the condition holds. It is tested now and after each `notify`."""
        while not condition():
            await self._event.wait()
