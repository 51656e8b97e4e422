"""Picks of the asynchronous client that wait (requirement E10). sync_wait_room.py is its equivalent for threads.

One task per client reads the lines about what made room, while a pick waits. Each waiter picks itself, in its turn
(wait_queue.py).
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
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

CLOSED_TEXT = "the client was closed while a pick waited"


class Run(Protocol):
    """Run steps. Raises LookupUnavailableError."""

    def __call__(self, steps: Steps[T], /) -> Coroutine[Any, Any, T]:
        """Return the result of the steps."""


class WaitRoom:
    """The waiting picks of one client, and the task that reads lines while there are any."""

    def __init__(
        self, protocol: WaitProtocol, run: Run, read: Callable[[CommandArgs], Awaitable[Any]], block_ms: int
    ) -> None:
        """`read`: sends one command on a connection of its own. `block_ms`: how long a read may wait."""
        self._protocol = protocol
        self._run = run
        self._send = read
        self._block_ms = block_ms
        self._queue = WaitQueue()
        self._reader: asyncio.Task[None] | None = None
        self._position = ""
        """Id of the last line read; empty while lines may be missed."""
        self._closed = False

    async def pick(self, call: PickCall, seconds: float) -> Picked | NoMember:
        """Pick, and wait for a node if there is none. Behind others with the same request, wait at once."""
        deadline = asyncio.get_running_loop().time() + seconds
        if call.group not in self._queue.groups:
            answer = await self._attempt(call)
            if isinstance(answer, Picked) or not seconds:
                return answer
            await self._run(self._protocol.check_wait_rights())
            if self._protocol.wait_denied:
                return replace(answer, wait_denied=True)
        event = asyncio.Event()
        waiter = self._queue.join(call.group, call.names, event.set, reading=bool(self._position))
        try:
            if self._reader is None:
                self._reader = asyncio.create_task(self._read())
            return await self._wait(waiter, call, event, deadline)
        finally:
            self._queue.leave(waiter)
            if not self._queue.groups:
                self._stop()

    async def _wait(self, waiter: Waiter, call: PickCall, event: asyncio.Event, deadline: float) -> Picked | NoMember:
        queue, loop = self._queue, asyncio.get_running_loop()
        while True:
            event.clear()
            now = loop.time()
            queue.advance(waiter, now)
            if self._closed:
                raise LookupUnavailableError(CLOSED_TEXT)
            if now >= deadline or self._protocol.wait_denied:
                return await self._conclude(waiter, call, now)
            if not queue.has_turn(waiter):
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(queue.time_to_look(waiter, deadline)):
                        await event.wait()
                continue
            answer = None
            with suppress(LookupUnavailableError):
                answer = await self._attempt(call)
            if isinstance(answer, Picked):
                return answer
            queue.fail(waiter, answer, loop.time())

    async def _conclude(self, waiter: Waiter, call: PickCall, now: float) -> Picked | NoMember:
        """Return the answer after the time: a fresh one of the group, else that of a last pick."""
        group = waiter.group
        answer: Picked | NoMember | None = group.answer
        if self._queue.has_turn(waiter) or answer is None or now - group.answered > FRESH_SECONDS:
            answer = await self._attempt(call)
        if isinstance(answer, NoMember) and self._protocol.wait_denied:
            return replace(answer, wait_denied=True)
        return answer

    async def _attempt(self, call: PickCall) -> Picked | NoMember:
        """Pick once. If it is cancelled, complete the call and release what it reserved."""
        steps = self._protocol.attempt(call)
        if not call.request.reservation:
            return await self._run(steps)
        task = asyncio.create_task(self._run(steps))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            with suppress(LookupUnavailableError):
                answer = await task
                if isinstance(answer, Picked) and answer.reservation:
                    await self._run(self._protocol.release(answer.reservation))
            raise

    async def _read(self) -> None:
        """Read lines, and mark who may be helped by them, until cancelled."""
        queue, loop = self._queue, asyncio.get_running_loop()
        refresh_at = loop.time()
        while True:
            try:
                if loop.time() >= refresh_at or not self._position:
                    self._position = await self._run(self._protocol.announce(self._position, queue.counts()))
                    refresh_at = loop.time() + REFRESH_SECONDS
                    queue.mark_all()
                reply = await self._send(self._protocol.read_lines(self._position, self._block_ms))
                lines = parse_lines(reply)
            except (LookupUnavailableError, *FAILURES):
                self._position = ""
                if self._protocol.wait_denied:
                    queue.wake_all()
                await asyncio.sleep(RETRY_SECONDS)
                continue
            if lines:
                self._position = lines[-1][0]
                queue.mark([words for _, words in lines])
                await asyncio.sleep(PAUSE_SECONDS)

    def _stop(self) -> asyncio.Task[None] | None:
        reader, self._reader, self._position = self._reader, None, ""
        if reader:
            reader.cancel()
        return reader

    async def close(self) -> None:
        """End all waiting picks with LookupUnavailableError."""
        self._closed = True
        self._queue.wake_all()
        if reader := self._stop():
            await asyncio.gather(reader, return_exceptions=True)
