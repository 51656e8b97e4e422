"""A proxy on the loopback interface: CONNECT tunnels and plain requests, all forwarded to one port."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field


@dataclass
class Proxy:
    """A proxy. `requests`: the first line of each; `refuse`: the status line of every response, if set.

    `sources`: the ports of this machine from which it is connected, with the credential of the client.
    """

    url: str = ""
    sources: dict[int, str] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    credentials: set[str] = field(default_factory=set)
    refuse: str | None = None


@asynccontextmanager
async def proxy_to(port: int | None) -> AsyncIterator[Proxy]:
    """Run a proxy to a port of this machine. None: the port that the client asks for, on this machine."""
    proxy = Proxy()
    tasks: set[asyncio.Task[None]] = set()

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task:
            tasks.add(task)
        with suppress(OSError, asyncio.IncompleteReadError):
            await _forward(proxy, port, reader, writer)
        writer.close()

    server = await asyncio.start_server(client, "127.0.0.1", 0)
    proxy.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield proxy
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _forward(proxy: Proxy, port: int | None, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    line, *headers = head.decode().split("\r\n")
    proxy.requests.append(line)
    credentials = [text.partition(": ")[2] for text in headers if text.lower().startswith("proxy-authorization")]
    proxy.credentials |= set(credentials)
    if proxy.refuse:
        writer.write(f"HTTP/1.1 {proxy.refuse}\r\nContent-Length: 0\r\n\r\n".encode())
        await writer.drain()
        return
    asked = int(line.split()[1].rpartition(":")[2]) if port is None else port
    server_reader, server_writer = await asyncio.open_connection("127.0.0.1", asked)
    source = server_writer.get_extra_info("sockname")[1]
    proxy.sources[source] = "".join(credentials)
    try:
        if line.startswith("CONNECT "):
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        else:
            server_writer.write(head)
        async with asyncio.TaskGroup() as both:
            both.create_task(_pump(reader, server_writer))
            both.create_task(_pump(server_reader, writer))
    finally:
        del proxy.sources[source]
        server_writer.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    with suppress(OSError):
        writer.write_eof()
