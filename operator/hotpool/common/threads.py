"""Threads for functions that may block without a limit, such as file access on a network drive.

No pool of limited size: functions that hang would exhaust it, and the program would wait for them when it exits. A few
idle threads are kept, because the start of a thread blocks its caller until the new thread has the interpreter.
"""

import errno
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Final, TypeVar

T = TypeVar("T")

_BUSY: Final = "blocking call"
_MAX_IDLE: Final = 4
_IDLE: Final[deque[SimpleQueue[Callable[[], None]]]] = deque()
"""Queues of the threads that wait for work."""


def run_in_thread(work: Callable[[], T]) -> "Future[T]":
    """Run `work` at once, in an idle thread or a new one."""
    future: Future[T] = Future()
    future.set_running_or_notify_cancel()  # From here on, a cancelled caller does not cancel it for the others.

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - raised again in the waiting callers
            future.set_exception(error)

    try:
        _IDLE.pop().put(run)
    except IndexError:
        try:
            threading.Thread(target=_serve, args=(run,), name=_BUSY, daemon=True).start()
        except RuntimeError as error:
            # The machine has no more threads or memory; callers expect errors of the system.
            future.set_exception(OSError(errno.EAGAIN, str(error)))
    return future


def _serve(work: Callable[[], None]) -> None:
    thread, queue = threading.current_thread(), SimpleQueue[Callable[[], None]]()
    while True:
        work()
        thread.name = "idle thread"
        if len(_IDLE) >= _MAX_IDLE:
            return
        _IDLE.append(queue)
        work, thread.name = queue.get(), _BUSY
