"""A server that responds as Redis 6.2, which has no functions. Injects the fault of a server that is too old."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

VERSION = "6.2.14"
_INFO = f"# Server\r\nredis_version:{VERSION}\r\nredis_mode:standalone\r\n"
_REPLIES = {"INFO": f"${len(_INFO)}\r\n{_INFO}\r\n", "LRANGE": "*0\r\n", "PING": "+PONG\r\n"}


@asynccontextmanager
async def old_redis() -> AsyncIterator[str]:
    """Run a server; yield its URL."""
    server = await asyncio.start_server(_serve, "127.0.0.1", 0)
    async with server:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while words := await _command(reader):
        reply = _REPLIES.get(words[0].upper(), f"-ERR unknown command `{words[0]}`, with args beginning with: \r\n")
        writer.write(reply.encode())
    writer.close()


async def _command(reader: asyncio.StreamReader) -> list[str]:
    """Return the words of the next command; empty at the end."""
    count = (await reader.readline())[1:]
    words = []
    for _ in range(int(count or 0)):
        size = int((await reader.readline())[1:])
        words.append((await reader.readexactly(size + 2))[:-2].decode())
    return words
