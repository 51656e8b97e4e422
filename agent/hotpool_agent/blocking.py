"""Threads for functions that may block without a limit, such as file access on a network drive. I/O (requirement A12).

Each call has a thread at once (`hotpool.common.threads`), so none waits for one that hangs.
"""

import asyncio
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from hotpool.common.threads import run_in_thread

T = TypeVar("T")


async def run_blocking(work: Callable[[], T], seconds: float | None = None) -> T:
    """Return or raise the outcome of `work`, for which a thread is free at once. Raises TimeoutError after `seconds`.

    The thread of an abandoned call goes on.
    """
    async with asyncio.timeout(seconds):
        return await asyncio.wrap_future(run_in_thread(work))


class SingleFlightRunner:
    """One thread per call, and at most one for the same key: a second caller waits for the first call's result."""

    def __init__(self) -> None:
        self._running: dict[Hashable, Future[Any]] = {}

    async def run(self, key: Hashable, work: Callable[[], T]) -> T:
        """Return or raise the outcome of `work`. Cancellation of the caller leaves the thread running."""
        future = self._running.get(key)
        if future is None or future.done():
            future = self._running[key] = run_in_thread(work)
        result: T = await asyncio.wrap_future(future)
        return result

    def is_running(self, key: Hashable) -> bool:
        """Return True while a call of this key has not ended."""
        future = self._running.get(key)
        return future is not None and not future.done()


class UnpooledExecutor(ThreadPoolExecutor):
    """Default executor of an event loop, with a free thread for each call: none waits for one that hangs.

    A subclass, because asyncio accepts nothing else. The base class never gets to start a thread.
    """

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> "Future[T]":
        """Run the function in a free thread."""
        return run_in_thread(partial(fn, *args, **kwargs))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 - as the base
        """Do nothing: threads end with their function, or with the process."""
