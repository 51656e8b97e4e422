"""A relay on loopback in front of one port: a network that a test can cut, stop or slow down.

Must not inspect the forwarded bytes.
"""

import asyncio
import socket
import struct
import threading
from collections.abc import Coroutine
from typing import Any, Final, Self, TypeVar

from localfleet.ports import free_port

T = TypeVar("T")

_LOOPBACK: Final = "127.0.0.1"
_CHUNK: Final = 64 * 1024
_BACKLOG: Final = 128
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
_CALL_SECONDS: Final = 10.0


class Relay:
    """Forwarder of connections from `port` to the target's port, both on loopback, for the duration of its block."""

    def __init__(self, target_port: int) -> None:
        self.accepted = 0
        """Connections accepted since the beginning."""
        self.delay = 0.0
        """Seconds of delay of each chunk, in both directions."""
        self._target = target_port
        self.port = free_port()
        self._place = _bound(self.port)
        self._listening = False
        self._open: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()
        self._flowing = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_forever, name="relay", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._call(self._listen())
        self.resume()
        return self

    def __exit__(self, *_: object) -> None:
        self._call(self._refuse())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_CALL_SECONDS)
        self._loop.close()
        self._place.close()

    @property
    def connections(self) -> int:
        """Connections open now."""
        return len(self._open)

    def cut(self) -> None:
        """Reset every connection, drop data in transit, and refuse new ones, as a machine without the program."""
        self._call(self._refuse())

    def restore(self) -> None:
        """Accept connections again."""
        self._call(self._listen())

    def hold(self) -> None:
        """Accept connections and forward nothing, as a broken network path."""
        self._call(self._flow(on=False))

    def resume(self) -> None:
        """Forward again, beginning with the held data."""
        self._call(self._flow(on=True))

    def forget(self) -> None:
        """Forward nothing more of the open connections, not even their end, as a router that lost its table.

        New connections work. `cut` resets the forgotten ones, too.
        """
        self._call(self._forget())

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_CALL_SECONDS)

    async def _flow(self, *, on: bool) -> None:
        if on:
            self._flowing.set()
        else:
            self._flowing.clear()

    async def _forget(self) -> None:
        self._flowing.clear()
        self._flowing = asyncio.Event()
        self._flowing.set()

    async def _listen(self) -> None:
        if not self._listening:
            self._listening = True
            self._place.listen(_BACKLOG)
            self._loop.add_reader(self._place, self._accept)

    async def _refuse(self) -> None:
        self._listening = False
        self._loop.remove_reader(self._place)
        # Bound and not listening: the port stays reserved, and a connection to it is refused.
        self._place.close()
        self._place = _bound(self.port)
        ending = set(self._open)
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)

    def _accept(self) -> None:
        # asyncio's own accept loses a connection, and never closes it, when it is cancelled at the same moment.
        try:
            near, _ = self._place.accept()
        except BlockingIOError:
            return
        near.setblocking(False)
        self.accepted += 1
        task = self._loop.create_task(self._serve(near, self._flowing))
        self._open.add(task)
        task.add_done_callback(self._open.discard)
        # A task that is cancelled before it started closes nothing.
        task.add_done_callback(lambda _: near.close())

    async def _serve(self, near: socket.socket, flowing: asyncio.Event) -> None:
        """Forward one connection until one end has closed it, or until it is cut."""
        with near, socket.socket() as far:
            far.setblocking(False)
            try:
                await self._loop.sock_connect(far, (_LOOPBACK, self._target))
                await self._forward(near, far, flowing)
            except (OSError, asyncio.CancelledError):
                for end in (near, far):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)

    async def _forward(self, near: socket.socket, far: socket.socket, flowing: asyncio.Event) -> None:
        """Copy both ways until one of them ends. Raises OSError if it was reset."""
        pumps = [asyncio.create_task(self._pump(*way, flowing)) for way in ((near, far), (far, near))]
        try:
            ended, _ = await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
        for pump in ended:
            pump.result()

    async def _pump(self, source: socket.socket, target: socket.socket, flowing: asyncio.Event) -> None:
        """Copy one way, also the end, while it flows."""
        chunk = b"?"
        while chunk:
            chunk = await self._loop.sock_recv(source, _CHUNK)
            if self.delay:
                await asyncio.sleep(self.delay)
            await flowing.wait()
            await self._loop.sock_sendall(target, chunk)


def _bound(port: int) -> socket.socket:
    """Return a socket that is bound to the port of loopback and does not listen."""
    place = socket.socket()
    place.setblocking(False)
    place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    place.bind((_LOOPBACK, port))
    return place
