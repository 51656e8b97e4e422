"""A TLS terminator on loopback in front of a plain server, with certificates that rotate."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from localfleet.ports import free_port

_CHUNK = 65_536
_HANDSHAKE = b"\x16"


class Terminator:
    """Ends TLS with the present context, always on the same `port`."""

    def __init__(self, target: int, context: ssl.SSLContext) -> None:
        self.port = free_port()
        self._target = target
        self._context = context
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=self._context)

    async def stop(self) -> None:
        """End every connection."""
        if self._server:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def rotate(self, context: ssl.SSLContext) -> None:
        """Use another certificate from now on, and end every connection."""
        await self.stop()
        self._context = context
        await self.start()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        server_reader, server_writer = await self._connect(reader)
        pumps = [asyncio.create_task(_pump(reader, server_writer)), asyncio.create_task(_pump(server_reader, writer))]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            for end in (writer, server_writer):
                end.transport.abort()

    async def _connect(self, reader: asyncio.StreamReader) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:  # noqa: ARG002 - PlainOrTls reads.
        return await asyncio.open_connection("127.0.0.1", self._target)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(_CHUNK):
            writer.write(data)
            await writer.drain()


@asynccontextmanager
async def terminator(target: int, context: ssl.SSLContext) -> AsyncIterator[Terminator]:
    """Run a terminator in front of a port of this machine."""
    front = Terminator(target, context)
    await front.start()
    try:
        yield front
    finally:
        await front.stop()


class PlainOrTls(Terminator):
    """A port that ends TLS and forwards plain connections, for servers that connect to each other by it."""

    async def start(self) -> None:
        """Listen, and start an inner terminator for TLS connections."""
        self._inner = Terminator(self._target, self._context)
        await self._inner.start()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def stop(self) -> None:
        """End every connection, of both kinds."""
        await super().stop()
        await self._inner.stop()

    async def _connect(self, reader: asyncio.StreamReader) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        head = await reader.read(_CHUNK)
        server_reader, server_writer = await asyncio.open_connection(
            "127.0.0.1", self._inner.port if head.startswith(_HANDSHAKE) else self._target
        )
        server_writer.write(head)
        return server_reader, server_writer


@asynccontextmanager
async def plain_or_tls(target: int, context: ssl.SSLContext) -> AsyncIterator[PlainOrTls]:
    """Run a port for both in front of a port of this machine."""
    front = PlainOrTls(target, context)
    await front.start()
    try:
        yield front
    finally:
        await front.stop()
