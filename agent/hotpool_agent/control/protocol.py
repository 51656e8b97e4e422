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

Op = Literal["status", "report", "start", "stop", "restart", "reload"]


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


def send(path: Path, request: Request) -> Any:
    """Send a request and return the result; wait without limit. Raises AgentUnreachableError or RequestError."""
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(str(path))
            # An agent with too many connections sends an error and closes the connection before it reads a request.
            with suppress(BrokenPipeError):
                connection.sendall(json.dumps(asdict(request)).encode() + b"\n")
            with connection.makefile("rb") as lines:
                line = lines.readline()
        except OSError as error:
            raise AgentUnreachableError(f"no agent responds at {path}: {error.strerror}") from error
    if not line.endswith(b"\n"):
        raise AgentUnreachableError(f"the agent at {path} ended before it responded")
    response = json.loads(line)
    if not response["ok"]:
        raise RequestError(response["error"])
    return response["result"]
