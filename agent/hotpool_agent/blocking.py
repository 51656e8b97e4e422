"""Threads for functions that may block without a limit, such as file access on a network drive. I/O (requirement A12).

No thread pool: functions that hang would exhaust it, and the agent would wait for them when it exits.
"""

import asyncio
import errno
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")


async def run_blocking(work: Callable[[], T], seconds: float | None = None) -> T:
    """Return or raise the outcome of `work`, which runs in a thread of its own. Raises TimeoutError after `seconds`.

    The thread of an abandoned call goes on. Raises OSError if no thread can be started.
    """
    async with asyncio.timeout(seconds):
        return await asyncio.wrap_future(_run_in_thread(work))


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

    def is_running(self, key: Hashable) -> bool:
        """Return True while a call of this key has not ended."""
        future = self._running.get(key)
        return future is not None and not future.done()


class UnpooledExecutor(ThreadPoolExecutor):
    """Default executor of an event loop, with a thread per call. Thus no call waits for another one that hangs.

    A subclass, because asyncio accepts nothing else. The base class never gets to start a thread.
    """

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> "Future[T]":
        """Run the function in a new thread."""
        return _run_in_thread(partial(fn, *args, **kwargs))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: FBT001, FBT002 - as the base
        """Do nothing: threads end with their function, or with the process."""


def call_within(work: Callable[[], T], seconds: float) -> T:
    """Return or raise the outcome of `work`, before an event loop runs. Raises TimeoutError."""
    return _run_in_thread(work).result(seconds)


def _run_in_thread(work: Callable[[], T]) -> "Future[T]":
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()  # From here on, a cancelled caller does not cancel it for the others.

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - raised again in the waiting callers
            future.set_exception(error)

    try:
        threading.Thread(target=run, name="blocking call", daemon=True).start()
    except RuntimeError as error:
        # The machine has no more threads or memory; callers expect errors of the system.
        future.set_exception(OSError(errno.EAGAIN, str(error)))
    return future
