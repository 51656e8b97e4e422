"""Runner of functions that may block, such as file access on a network drive, in threads of their own. I/O.

The event loop's thread pool is unsuitable: functions that hang would exhaust it, and the agent would wait for them when
it exits.
"""

import asyncio
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


class SingleFlightRunner:
    """One thread per call, and at most one for the same key: a second caller waits for the first call's result."""

    def __init__(self) -> None:
        self._running: dict[Hashable, Future[Any]] = {}

    async def run(self, key: Hashable, work: Callable[[], T]) -> T:
        """Return or raise the outcome of `work`. Cancellation of the caller leaves the thread running."""
        future = self._running.get(key)
        if future is None or future.done():
            future = self._running[key] = _run_in_thread(work)
        result: T = await asyncio.wrap_future(future)
        return result


def _run_in_thread(work: Callable[[], T]) -> "Future[T]":
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()  # From here on, a cancelled caller does not cancel it for the others.

    def run() -> None:
        try:
            future.set_result(work())
        except Exception as error:  # noqa: BLE001 - raised again in the waiting callers
            future.set_exception(error)

    threading.Thread(target=run, name="blocking probe", daemon=True).start()
    return future
