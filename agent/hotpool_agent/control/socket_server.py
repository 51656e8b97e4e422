"""The answering side of the local socket (requirement A2). I/O.

Each connection has a task of its own; a bad line gets an error line and never ends the server; a client that asks
nothing, or does not take its answer, loses its connection after a time. Must not know services: what a request does is
the dispatcher's business.
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

Answer = dict[str, Any]
Dispatch = Callable[[Request], Awaitable[Any]]

_LOG: Final = structlog.get_logger(__name__)
_REQUEST: Final = TypeAdapter(Request)
_LOOK_SECONDS: Final = 1.0
"""How often it is looked whether the client of a long request is still there."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What clients may take up; times in seconds."""

    connections: int = 64
    """Clients at once; and requests at once whose clients have gone."""
    ask_seconds: float = 60.0
    """Within this time a client sends its next request, whole."""
    take_seconds: float = 10.0
    """Within this time a client reads its answer."""


async def serve(path: Path, dispatch: Dispatch, limits: Limits | None = None) -> asyncio.Server:
    """Listen on the socket (0600, in a folder of the owner's alone). The caller must hold the node's lock."""
    _clear(path)
    clients = _Connections(dispatch, limits or Limits())
    server = await asyncio.start_unix_server(clients.serve, path, limit=LINE_BYTES)
    os.chmod(path, 0o600)  # noqa: PTH101 - at once, before anybody is served
    return server


def _clear(path: Path) -> None:
    """Make room for the socket. The folder may be in a shared temporary one, so it must be ours alone."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        path.parent.chmod(0o700)
        path.unlink(missing_ok=True)
    except PermissionError as error:
        raise PathError(f"{path.parent} is another user's; set HOTPOOL_AGENT_STATE_DIR to a shorter folder") from error


class _Connections:
    """All connections of one socket."""

    def __init__(self, dispatch: Dispatch, limits: Limits) -> None:
        self._dispatch = dispatch
        self._limits = limits
        self._connected = 0
        self._orphans: set[asyncio.Task[Answer]] = set()
        """Requests that go on although their client has gone: one half done would be worse."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, from beginning to end."""
        self._connected += 1
        try:
            with suppress(ConnectionError, TimeoutError):
                await self._serve_lines(reader, writer)
                writer.close()
                async with asyncio.timeout(self._limits.take_seconds):
                    await writer.wait_closed()
        finally:
            writer.transport.abort()
            self._connected -= 1

    async def _serve_lines(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request after the other. Raises TimeoutError for a client that is too slow."""
        if max(self._connected - 1, len(self._orphans)) >= self._limits.connections:
            await self._write_line(writer, _refusal("too many requests at once; try again later"))
            return
        while True:
            try:
                async with asyncio.timeout(self._limits.ask_seconds):
                    line = await reader.readuntil(b"\n")
            except asyncio.IncompleteReadError:
                return
            except asyncio.LimitOverrunError:
                await self._write_line(writer, _refusal(f"a request has at most {LINE_BYTES} bytes"))
                return
            answer = await self._answer_while_connected(line, writer)
            if answer is None:
                return
            await self._write_line(writer, answer)

    async def _answer_while_connected(self, line: bytes, writer: asyncio.StreamWriter) -> Answer | None:
        """The answer, or None when the client goes before it is there."""
        task = asyncio.create_task(_answer(line, self._dispatch))
        while not task.done():
            await asyncio.wait({task}, timeout=_LOOK_SECONDS)
            if not task.done() and _gone(writer):
                self._orphans.add(task)
                task.add_done_callback(self._orphans.discard)
                return None
        return task.result()

    async def _write_line(self, writer: asyncio.StreamWriter, answer: Answer) -> None:
        writer.write(json.dumps(answer).encode() + b"\n")
        async with asyncio.timeout(self._limits.take_seconds):
            await writer.drain()


async def _answer(line: bytes, dispatch: Dispatch) -> Answer:
    try:
        request = _REQUEST.validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        return _refusal(f"bad request: {where}: {first['msg']} (the running agent is version {__version__})")
    try:
        return {"ok": True, "result": await dispatch(request)}
    except RequestError as error:
        return _refusal(str(error))
    except Exception:  # noqa: BLE001 - one request's bug must not end the socket for all
        _LOG.exception("internal error", request=request.op)
        return _refusal("internal error; see the agent's log")


def _refusal(error: str) -> Answer:
    return {"ok": False, "error": error}


def _gone(writer: asyncio.StreamWriter) -> bool:
    """Whether the client has closed its socket. Having closed its sending side only, it still waits for the answer."""
    number: int = writer.get_extra_info("socket").fileno()
    if number < 0:
        return True
    watched = select.poll()
    watched.register(number, 0)
    return any(event & select.POLLHUP for _, event in watched.poll(0))
