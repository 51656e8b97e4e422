"""Requests to a running agent over its local socket, and their client (requirement A2). I/O.

Requests and responses are one JSON object a line. Must stay quick to import.

There is no version field. A request with an unknown operation or field is refused as a whole, and the error has the
version of the agent. A response may gain fields; clients ignore those that they do not know.
"""

import json
import socket
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, Literal

LINE_BYTES: Final = 64 * 1024
"""Maximum size of a request."""

ANSWER_SECONDS: Final = 10.0
"""Time in which a running agent responds to `status`, even on a busy machine."""

Op = Literal["status", "report", "start", "stop", "restart", "stop-all", "reload", "drain", "undrain"]
_PROMPT: Final = frozenset({"status", "report"})
"""Operations that a running agent responds to at once."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request. `id` is that of a service. With `wait` the response is sent when the state is reached."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    op: Op
    id: str | None = None
    wait: bool = True


class RequestError(Exception):
    """The request failed; the message is for the user."""


class AgentUnreachableError(Exception):
    """The agent does not respond; the message has the path of the socket."""


def send(path: Path, request: Request, *, limit: float = ANSWER_SECONDS) -> Any:
    """Send a request and return the result. Raises AgentUnreachableError or RequestError.

    A start may take minutes. So the wait has no limit, but the agent must respond to `status` within `limit` seconds.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(limit)
        try:
            connection.connect(str(path))
            # An agent with too many connections sends an error and closes the connection before it reads a request.
            with suppress(BrokenPipeError):
                connection.sendall(json.dumps(asdict(request)).encode() + b"\n")
            line = _read_line(connection, path, request, limit)
        except (TimeoutError, BlockingIOError) as error:
            raise AgentUnreachableError(f"the agent at {path} hangs: no response within {limit:g} s") from error
        except PermissionError as error:
            raise AgentUnreachableError(f"the agent at {path} is not yours: {_owner(path)}") from error
        except OSError as error:
            raise AgentUnreachableError(f"no agent responds at {path}: {error.strerror}") from error
    if not line.endswith(b"\n"):
        raise AgentUnreachableError(f"the agent at {path} ended before it responded")
    return _result(line, path)


def _read_line(connection: socket.socket, path: Path, request: Request, limit: float) -> bytes:
    """Read the response. Raises TimeoutError or AgentUnreachableError when the agent hangs."""
    received = bytearray()
    while not received.endswith(b"\n"):
        try:
            block = connection.recv(LINE_BYTES)
        except TimeoutError:
            if request.op in _PROMPT:
                raise
            with suppress(RequestError):
                send(path, Request(op="status"), limit=limit)
            continue
        if not block:
            break
        received += block
    return bytes(received)


def _result(line: bytes, path: Path) -> Any:
    try:
        response = json.loads(line)
        succeeded, content = response["ok"], response["result" if response["ok"] else "error"]
    except (ValueError, LookupError, TypeError) as error:
        raise AgentUnreachableError(f"what listens at {path} is not an agent") from error
    if not succeeded:
        raise RequestError(str(content))
    return content


def _owner(path: Path) -> str:
    """Return the user whose socket it is, as far as this user may know."""
    for place in (path, *path.parents):
        with suppress(OSError):
            return f"{place} belongs to user {place.stat().st_uid}; run the command as that user"
    return "it belongs to another user"
