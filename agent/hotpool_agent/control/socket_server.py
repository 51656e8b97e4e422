"""Server of the local socket (requirement A2). I/O.

Each connection has its own task. An invalid line gets an error response and never ends the server. A client that sends
no request, or does not read its response, is disconnected after a time limit. Must not depend on services: `dispatch`
executes the requests.
"""

import asyncio
import json
import os
import select
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import structlog
from pydantic import TypeAdapter, ValidationError

from hotpool_agent import __version__
from hotpool_agent.control.protocol import LINE_BYTES, Request, RequestError
from hotpool_agent.paths import PathError

Response = dict[str, Any]
Dispatch = Callable[[Request], Awaitable[Any]]

_LOG: Final = structlog.get_logger(__name__)
_REQUEST: Final = TypeAdapter(Request)
_POLL_SECONDS: Final = 1.0
"""Interval of checks that the client of a long request is still connected."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of clients; times in seconds."""

    connections: int = 64
    """Maximum of connections, and of running requests without a connection."""
    read_seconds: float = 60.0
    """Time for a client to send its next request completely."""
    write_seconds: float = 10.0
    """Time for a client to read its response."""


async def serve(path: Path, dispatch: Dispatch, limits: Limits | None = None) -> asyncio.Server:
    """Listen on the socket (mode 0600 in a folder with mode 0700). The caller must hold the lock of the node."""
    _clear(path)
    clients = _Connections(dispatch, limits or Limits())
    server = await asyncio.start_unix_server(clients.serve, path, limit=LINE_BYTES)
    os.chmod(path, 0o600)  # noqa: PTH101 - blocks, so that no client connects before
    return server


def _clear(path: Path) -> None:
    """Delete a former socket. Raises PathError if its folder, which may be in a shared one, belongs to another user."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        path.parent.chmod(0o700)
        path.unlink(missing_ok=True)
    except PermissionError as error:
        raise PathError(
            f"{path.parent}, the folder of the socket for long paths, belongs to another user; "
            "set HOTPOOL_AGENT_STATE_DIR to a path that is short enough for a socket"
        ) from error


class _Connections:
    """All connections of one socket."""

    def __init__(self, dispatch: Dispatch, limits: Limits) -> None:
        self._dispatch = dispatch
        self._limits = limits
        self._connected = 0
        self._orphans: set[asyncio.Task[Response]] = set()
        """Requests that continue without their client, because a half-done request would be worse."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until it ends."""
        self._connected += 1
        try:
            with suppress(ConnectionError, TimeoutError):
                await self._serve_lines(reader, writer)
                writer.close()
                async with asyncio.timeout(self._limits.write_seconds):
                    await writer.wait_closed()
        finally:
            writer.transport.abort()
            self._connected -= 1

    async def _serve_lines(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Respond to one request after the other. Raises TimeoutError if the client is too slow."""
        if max(self._connected - 1, len(self._orphans)) >= self._limits.connections:
            await self._write_line(writer, _error("too many requests at once; try again later"))
            return
        while True:
            try:
                async with asyncio.timeout(self._limits.read_seconds):
                    line = await reader.readuntil(b"\n")
            except asyncio.IncompleteReadError:
                return
            except asyncio.LimitOverrunError:
                await self._write_line(writer, _error(f"a request has at most {LINE_BYTES} bytes"))
                return
            response = await self._respond_while_connected(line, writer)
            if response is None:
                return
            await self._write_line(writer, response)

    async def _respond_while_connected(self, line: bytes, writer: asyncio.StreamWriter) -> Response | None:
        """Return the response, or None if the client disconnects before it is ready."""
        task = asyncio.create_task(_respond(line, self._dispatch))
        while not task.done():
            await asyncio.wait({task}, timeout=_POLL_SECONDS)
            if not task.done() and _disconnected(writer):
                self._orphans.add(task)
                task.add_done_callback(self._orphans.discard)
                return None
        return task.result()

    async def _write_line(self, writer: asyncio.StreamWriter, response: Response) -> None:
        writer.write(json.dumps(response).encode() + b"\n")
        async with asyncio.timeout(self._limits.write_seconds):
            await writer.drain()


async def _respond(line: bytes, dispatch: Dispatch) -> Response:
    try:
        request = _REQUEST.validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        return _error(f"bad request: {where}: {first['msg']} (the running agent is version {__version__})")
    try:
        return {"ok": True, "result": await dispatch(request)}
    except RequestError as error:
        return _error(str(error))
    except Exception:  # noqa: BLE001 - an error in one request must not end the server
        _LOG.exception("internal error", request=request.op)
        return _error("internal error; see the agent's log")


def _error(message: str) -> Response:
    return {"ok": False, "error": message}


def _disconnected(writer: asyncio.StreamWriter) -> bool:
    """Return True if the client has closed its socket. With only its sending side closed, it waits for the response."""
    descriptor: int = writer.get_extra_info("socket").fileno()
    if descriptor < 0:
        return True
    poller = select.poll()
    poller.register(descriptor, 0)
    return any(event & select.POLLHUP for _, event in poller.poll(0))
