"""CPU time of the turns of an event loop.

A turn is all that runs between two looks at the sockets and timers: a stop that arrives meanwhile waits for its end.
CPU time, not wall time, so that other processes of the machine do not count.
"""

import asyncio
import selectors
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class TurnMeter(selectors.DefaultSelector):
    """Selector of an event loop that measures each turn. `foreign` returns CPU seconds that do not count."""

    def __init__(self, foreign: Callable[[], float]) -> None:
        super().__init__()
        self._foreign = foreign
        self._began = self._cpu()
        self._longest = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """End a turn, wait, and begin the next one."""
        self._longest = max(self._longest, self._cpu() - self._began)
        ready = super().select(timeout)
        self._began = self._cpu()
        return ready

    async def longest_ms(self, work: Awaitable[Any]) -> float:
        """Return the milliseconds of the longest turn during `work`."""
        await asyncio.sleep(0)  # what ran before is another turn
        self._longest = 0.0
        await work
        await asyncio.sleep(0)
        return self._longest * 1000

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in an event loop with this selector."""
        with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(self)) as runner:
            return runner.run(work)

    def _cpu(self) -> float:
        return time.thread_time() - self._foreign()
