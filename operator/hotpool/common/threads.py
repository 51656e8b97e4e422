"""Threads for functions that may block without a limit, such as file access on a network drive.

No thread pool: functions that hang would exhaust it, and the program would wait for them when it exits.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def run_in_thread(work: Callable[[], T]) -> "Future[T]":
    """Run `work` in a thread of its own, which ends with it or with the process."""
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()  # From here on, a cancelled caller does not cancel it for the others.

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - raised again in the waiting callers
            future.set_exception(error)

    threading.Thread(target=run, name="blocking call", daemon=True).start()
    return future
