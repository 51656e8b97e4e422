"""Picks of the synchronous client that wait, as wait_room.py: one thread per client reads lines while a pick waits."""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any, Protocol

from hotpool.projection.functions import CommandArgs
from hotpool.projection.lookup.protocol import FAILURES, LookupUnavailableError
from hotpool.projection.lookup.results import NoMember, Picked
from hotpool.projection.lookup.steps import Steps, T
from hotpool.projection.lookup.wait_protocol import (
    FRESH_SECONDS,
    PAUSE_SECONDS,
    REFRESH_SECONDS,
    RETRY_SECONDS,
    PickCall,
    WaitProtocol,
    parse_lines,
)
from hotpool.projection.lookup.wait_queue import Waiter, WaitQueue
from hotpool.projection.lookup.wait_room import CLOSED_TEXT


class SyncRun(Protocol):
    """Run steps. Raises LookupUnavailableError."""

    def __call__(self, steps: Steps[T], /) -> T:
        """Return the result of the steps."""


class SyncWaitRoom:
    """The waiting picks of one client. The thread that reads ends soon after the last of them."""

    def __init__(self, protocol: WaitProtocol, run: SyncRun, read: Callable[[CommandArgs], Any], block_ms: int) -> None:
        """`read`: sends one command on a connection of its own. `block_ms`: how long a read may wait."""
        self._protocol = protocol
        self._run = run
        self._send = read
        self._block_ms = block_ms
        self._lock = threading.Lock()
        self._queue = WaitQueue()
        self._reader: threading.Thread | None = None
        self._position = ""
        self._closed = threading.Event()

    def pick(self, call: PickCall, seconds: float) -> Picked | NoMember:
        """Pick, and wait for a node if there is none. Behind others with the same request, wait at once."""
        deadline = time.monotonic() + seconds
        with self._lock:
            is_first = call.group not in self._queue.groups
        if is_first:
            answer = self._run(self._protocol.attempt(call))
            if isinstance(answer, Picked) or not seconds:
                return answer
            self._run(self._protocol.check_wait_rights())
            if self._protocol.wait_denied:
                return replace(answer, wait_denied=True)
        event = threading.Event()
        with self._lock:
            waiter = self._queue.join(call.group, call.names, event.set, reading=bool(self._position))
        try:
            self._start()
            return self._wait(waiter, call, event, deadline)
        finally:
            with self._lock:
                self._queue.leave(waiter)

    def _wait(self, waiter: Waiter, call: PickCall, event: threading.Event, deadline: float) -> Picked | NoMember:
        queue = self._queue
        while True:
            event.clear()
            now = time.monotonic()
            with self._lock:
                queue.advance(waiter, now)
                has_turn, until = queue.has_turn(waiter), queue.time_to_look(waiter, deadline)
            if self._closed.is_set():
                raise LookupUnavailableError(CLOSED_TEXT)
            if now >= deadline or self._protocol.wait_denied:
                return self._conclude(waiter, call, now, has_turn=has_turn)
            if not has_turn:
                event.wait(until - now)
                continue
            answer = None
            with suppress(LookupUnavailableError):
                answer = self._run(self._protocol.attempt(call))
            if isinstance(answer, Picked):
                return answer
            with self._lock:
                queue.fail(waiter, answer, time.monotonic())

    def _conclude(self, waiter: Waiter, call: PickCall, now: float, *, has_turn: bool) -> Picked | NoMember:
        """Return the answer after the time: a fresh one of the group, else that of a last pick."""
        with self._lock:
            answer: Picked | NoMember | None = waiter.group.answer
            answered = waiter.group.answered
        if has_turn or answer is None or now - answered > FRESH_SECONDS:
            answer = self._run(self._protocol.attempt(call))
        if isinstance(answer, NoMember) and self._protocol.wait_denied:
            return replace(answer, wait_denied=True)
        return answer

    def _start(self) -> None:
        with self._lock:
            if not self._closed.is_set() and not (self._reader and self._reader.is_alive()):
                self._position = ""
                self._reader = threading.Thread(target=self._read, name="hotpool-lookup-wait", daemon=False)
                self._reader.start()

    def _goes_on(self) -> bool:
        """Return False, once and for the current thread, if no pick waits."""
        with self._lock:
            if self._queue.groups and not self._closed.is_set():
                return True
            self._reader, self._position = None, ""
            return False

    def _read(self) -> None:
        """Read lines, and mark who may be helped by them, while a pick waits."""
        queue, refresh_at = self._queue, time.monotonic()
        while self._goes_on():
            try:
                if time.monotonic() >= refresh_at or not self._position:
                    with self._lock:
                        counts = queue.counts()
                    position = self._run(self._protocol.announce(self._position, counts))
                    refresh_at = time.monotonic() + REFRESH_SECONDS
                    with self._lock:
                        self._position = position
                        queue.mark_all()
                lines = parse_lines(self._send(self._protocol.read_lines(self._position, self._block_ms)))
            except (LookupUnavailableError, *FAILURES):
                with self._lock:
                    self._position = ""
                    if self._protocol.wait_denied:
                        queue.wake_all()
                self._closed.wait(RETRY_SECONDS)
                continue
            if lines:
                with self._lock:
                    self._position = lines[-1][0]
                    queue.mark([words for _, words in lines])
                self._closed.wait(PAUSE_SECONDS)

    def close(self) -> None:
        """End all waiting picks with LookupUnavailableError, and the thread."""
        self._closed.set()
        with self._lock:
            self._queue.wake_all()
            reader = self._reader
        if reader and reader is not threading.current_thread():
            reader.join()
