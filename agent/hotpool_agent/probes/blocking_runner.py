"""Runs look-ups that may block, such as those of files on a network drive, beside the event loop. I/O.

The loop's own pool of threads is not for them: look-ups that hang would use it up, and the agent would wait for them at
its end.
"""

import asyncio
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


class SingleFlightRunner:
    """One thread for each look-up, and never two at once for the same key: who asks again waits for the first."""

    def __init__(self) -> None:
        self._running: dict[Hashable, Future[Any]] = {}

    async def run(self, key: Hashable, work: Callable[[], T]) -> T:
        """What `work` returns or raises; a caller that gives up leaves it running."""
        future = self._running.get(key)
        if future is None or future.done():
            future = self._running[key] = _run_in_thread(work)
        result: T = await asyncio.wrap_future(future)
        return result


def _run_in_thread(work: Callable[[], T]) -> "Future[T]":
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()  # From here on, cancelling one who waits does not cancel it for the others.

    def run() -> None:
        try:
            future.set_result(work())
        except Exception as error:  # noqa: BLE001 - raised again where it is waited for
            future.set_exception(error)

    threading.Thread(target=run, name="look-up", daemon=True).start()
    return future
