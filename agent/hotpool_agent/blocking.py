"""Calls that may block without an end, such as access to files of a network drive, in daemon threads. I/O.

The event loop's thread pool is unsuitable: calls that hang would exhaust it, and the agent would wait for them when it
exits.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


async def run_blocking(work: Callable[[], T], seconds: float | None = None) -> T:
    """Return or raise the outcome of `work`, which runs in a thread of its own. Raises TimeoutError after `seconds`.

    The thread of an abandoned call goes on.
    """
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()  # From here on, a cancelled caller does not cancel it.

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - raised again in the caller
            future.set_exception(error)

    threading.Thread(target=run, name="blocking call", daemon=True).start()
    async with asyncio.timeout(seconds):
        return await asyncio.wrap_future(future)
