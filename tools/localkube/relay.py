"""Relay connections from a worker's network namespace to the API server, which listens on the host's loopback only.

Listens on the node's address inside the namespace, connects outside, and copies bytes both ways. Must not import
anything of localkube (it runs as a bare file), or listen on an address of the host.
"""

import asyncio
import ctypes
import os
import socket
import sys
from pathlib import Path

_CHUNK = 65536
_NET = 0x40000000  # CLONE_NEWNET of sched.h; os.setns came with Python 3.12.


def main() -> None:
    """``relay.py PID ADDRESS PORT``: from the address in the process's namespace to the same port of loopback."""
    pid, address, port = sys.argv[1:]
    listener = _listen(Path(f"/proc/{pid}/ns/net"), address, int(port))
    asyncio.run(_serve(listener, int(port)))


def _listen(namespace: Path, address: str, port: int) -> socket.socket:
    """A socket stays in the namespace in which it was made, wherever its process goes."""
    own = os.open("/proc/self/ns/net", os.O_RDONLY)
    other = os.open(namespace, os.O_RDONLY)
    _enter(other)
    listener = socket.create_server((address, port), backlog=128)
    _enter(own)
    return listener


def _enter(namespace: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, _NET):
        raise OSError(ctypes.get_errno(), "setns")


async def _serve(listener: socket.socket, port: int) -> None:
    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there = await asyncio.open_connection("127.0.0.1", port)
        except OSError:  # The API server is away: the client sees its connection end, and comes again.
            writer.transport.abort()
            return
        await asyncio.gather(_copy(reader, there[1]), _copy(there[0], writer))

    async with await asyncio.start_server(accept, sock=listener) as server:
        await server.serve_forever()


async def _copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    """Copy until one side ends, then end the other: TLS has no half-open connections worth keeping."""
    try:
        while chunk := await source.read(_CHUNK):
            target.write(chunk)
            await target.drain()
    except OSError:
        target.transport.abort()
    finally:
        target.close()


if __name__ == "__main__":
    main()
