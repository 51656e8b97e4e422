"""A TLS terminator on loopback before a server that speaks none: tests over TLS, with certificates that rotate."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from localfleet.ports import free_port

_CHUNK = 65_536
_HANDSHAKE = b"\x16"


class Terminator:
    """Connections with the context that is there now; `port` stays."""

    def __init__(self, target: int, context: ssl.SSLContext) -> None:
        self.port = free_port()
        self._target = target
        self._context = context
        self._server: asyncio.Server | None = None
        self._talks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen, each time on the same port."""
        self._server = await asyncio.start_server(self._talk, "127.0.0.1", self.port, ssl=self._context)

    async def stop(self) -> None:
        """End every connection."""
        if self._server:
            self._server.close()
        for talk in self._talks:
            talk.cancel()
        await asyncio.gather(*self._talks, return_exceptions=True)

    async def rotate(self, context: ssl.SSLContext) -> None:
        """From now on show another certificate; what was connected is not any more."""
        await self.stop()
        self._context = context
        await self.start()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._talks.add(task)
        task.add_done_callback(self._talks.discard)
        far_reader, far_writer = await self._far(reader)
        pumps = [asyncio.create_task(_pump(reader, far_writer)), asyncio.create_task(_pump(far_reader, writer))]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            for end in (writer, far_writer):
                end.transport.abort()

    async def _far(self, reader: asyncio.StreamReader) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:  # noqa: ARG002 - Either looks.
        return await asyncio.open_connection("127.0.0.1", self._target)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()


@asynccontextmanager
async def terminator(target: int, context: ssl.SSLContext) -> AsyncIterator[Terminator]:
    """A running terminator before that port of this machine."""
    made = Terminator(target, context)
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


class Either(Terminator):
    """A port where TLS is ended, and what is said plainly goes through as it is: for servers that also meet there."""

    async def start(self) -> None:
        """Listen, and listen beside it for those who speak TLS."""
        self._inner = Terminator(self._target, self._context)
        await self._inner.start()
        self._server = await asyncio.start_server(self._talk, "127.0.0.1", self.port)

    async def stop(self) -> None:
        """End every connection, of both kinds."""
        await super().stop()
        await self._inner.stop()

    async def _far(self, reader: asyncio.StreamReader) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        begun = await reader.read(_CHUNK)
        far_reader, far_writer = await asyncio.open_connection(
            "127.0.0.1", self._inner.port if begun.startswith(_HANDSHAKE) else self._target
        )
        far_writer.write(begun)
        return far_reader, far_writer


@asynccontextmanager
async def either(target: int, context: ssl.SSLContext) -> AsyncIterator[Either]:
    """A running port of both kinds before that port of this machine."""
    made = Either(target, context)
    await made.start()
    try:
        yield made
    finally:
        await made.stop()
