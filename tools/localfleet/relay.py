"""A relay on loopback in front of one address: a network whose faults a test commands.

Its job: forward bytes, until told to cut, to stand still or to be slow. Called by: tests of outages and partitions.
It must not: look into what it forwards.
"""

import asyncio
import socket
import struct
import threading
from collections.abc import Coroutine
from typing import Any, Final, Self, TypeVar

T = TypeVar("T")

_LOOPBACK: Final = "127.0.0.1"
_CHUNK: Final = 64 * 1024
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)
_CALL_SECONDS: Final = 10.0


class Relay:
    """Forwards connections on `port` to the target's port, both on loopback, while its block lasts."""

    def __init__(self, target_port: int) -> None:
        self.accepted = 0
        """Connections accepted since the beginning."""
        self.delay = 0.0
        """Seconds by which each chunk is late, in both directions."""
        self._target = target_port
        self._place = _bound(0)
        self.port = int(self._place.getsockname()[1])
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()
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
        self._place.close()

    @property
    def connections(self) -> int:
        """Connections open now."""
        return len(self._open) // 2

    def cut(self) -> None:
        """Reset every connection and refuse new ones, as a machine without the program does."""
        self._call(self._refuse())

    def mend(self) -> None:
        """Accept connections again."""
        self._call(self._listen())

    def hold(self) -> None:
        """Accept connections and forward nothing, as a broken path does."""
        self._loop.call_soon_threadsafe(self._flowing.clear)

    def resume(self) -> None:
        """Forward again, beginning with what was held."""
        self._loop.call_soon_threadsafe(self._flowing.set)

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_CALL_SECONDS)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, sock=self._place)

    async def _refuse(self) -> None:
        if self._server:
            self._server.close()
            self._server = None
            # Bound and not listening: the port stays ours, and a connection to it is refused.
            self._place = _bound(self.port)
        for writer in self._open:
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        try:
            far_reader, far_writer = await asyncio.open_connection(_LOOPBACK, self._target)
        except OSError:
            writer.transport.abort()
            return
        ends = {writer, far_writer}
        self._open |= ends
        pumps = [asyncio.create_task(self._pump(*way)) for way in ((reader, far_writer), (far_reader, writer))]
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
        for end in ends:
            end.close()
        self._open -= ends

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(_CHUNK):
            if self.delay:
                await asyncio.sleep(self.delay)
            await self._flowing.wait()
            writer.write(chunk)
            await writer.drain()


def _bound(port: int) -> socket.socket:
    """A socket that has the port of loopback and does not listen."""
    place = socket.socket()
    place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    place.bind((_LOOPBACK, port))
    return place
