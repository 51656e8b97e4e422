"""Requests to a running agent over its local socket, and the asking side (requirement A2). I/O.

One JSON object a line, each way; `control_server` answers. Must stay quick to import.

There is no version field: a request that the agent does not know whole (an operation, a field) is refused with the
agent's version in the words, never half done; an answer may gain fields, and askers ignore those that they do not know.
"""

import json
import socket
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, Literal

LINE_BYTES: Final = 64 * 1024
"""A request's limit."""

Op = Literal["status", "report", "start", "stop", "restart", "reload"]


@dataclass(frozen=True, slots=True)
class Request:
    """A request. `id` names a service; `wait`: answer when the state is reached."""

    __pydantic_config__: ClassVar = {"extra": "forbid"}

    op: Op
    id: str | None = None
    wait: bool = True


class RequestError(Exception):
    """The request failed; the message is for the person who asked."""


class AgentDownError(Exception):
    """No agent answers; the message names the socket."""


def ask(path: Path, request: Request) -> Any:
    """The agent's answer. Raises AgentDownError, or RequestError with the agent's words. Blocks without limit."""
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(str(path))
            # An agent that has too many askers answers before it is asked, and hangs up.
            with suppress(BrokenPipeError):
                connection.sendall(json.dumps(asdict(request)).encode() + b"\n")
            with connection.makefile("rb") as lines:
                line = lines.readline()
        except OSError as error:
            raise AgentDownError(f"no agent answers at {path}: {error.strerror}") from error
    if not line.endswith(b"\n"):
        raise AgentDownError(f"the agent at {path} ended before it answered")
    answer = json.loads(line)
    if not answer["ok"]:
        raise RequestError(answer["error"])
    return answer["result"]
