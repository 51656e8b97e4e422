"""The answering side of the local socket (behaviour A2). I/O.

Owned by the wiring. A bad line gets an error line and never ends the server. Must not know services: what a request
does is the dispatcher's business.
"""

import asyncio
import json
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import structlog
from pydantic import ValidationError

from hotpool_agent.control import LINE_BYTES, Request, RequestError
from hotpool_agent.paths import PathError

_LOG: Final = structlog.get_logger(__name__)

Dispatch = Callable[[Request], Awaitable[Any]]


async def serve(path: Path, dispatch: Dispatch) -> asyncio.Server:
    """Listen on the socket (0600, in a folder of the owner's alone). The caller must hold the node's lock."""
    _clear(path)

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            await _converse(reader, writer, dispatch)
        writer.close()

    server = await asyncio.start_unix_server(client, path, limit=LINE_BYTES)
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


async def _converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, dispatch: Dispatch) -> None:
    while True:
        try:
            line = await reader.readuntil(b"\n")
        except asyncio.IncompleteReadError:
            return
        except asyncio.LimitOverrunError:
            await _say(writer, {"ok": False, "error": f"a request has at most {LINE_BYTES} bytes"})
            return
        await _say(writer, await _answer(line, dispatch))


async def _answer(line: bytes, dispatch: Dispatch) -> dict[str, Any]:
    try:
        request = Request.model_validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        return {"ok": False, "error": f"bad request: {'.'.join(map(str, first['loc']))}: {first['msg']}"}
    try:
        return {"ok": True, "result": await dispatch(request)}
    except RequestError as error:
        return {"ok": False, "error": str(error)}
    except Exception:  # noqa: BLE001 - one request's bug must not end the socket for all
        _LOG.exception("internal error", request=request.op)
        return {"ok": False, "error": "internal error; see the agent's log"}


async def _say(writer: asyncio.StreamWriter, answer: dict[str, Any]) -> None:
    writer.write(json.dumps(answer).encode() + b"\n")
    await writer.drain()
