"""Queries of the API server: connection, error messages and exit codes."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from difflib import get_close_matches
from typing import Any, Final, TypeVar

from hotpool.cli.options import CommandError, FleetOptions, fail
from hotpool.common import exit_codes
from hotpool.common.kubeconfig import Target
from hotpool.core.model import Kind
from hotpool.kube.client import ApiUnavailable, Connection, connected
from hotpool.kube.reader import READ_TIMEOUT, Reader

T = TypeVar("T")

SINGULAR: Final = {Kind.NODE: "nodecapability", Kind.POOL: "nodepool", Kind.GENERATOR: "nodepoolgenerator"}
_MAX_SUGGESTIONS: Final = 3
ERROR_CODES: Final[Mapping[int, str]] = {
    exit_codes.USAGE: "wrong usage",
    exit_codes.UNAVAILABLE: "the API server cannot be reached or answers with an error",
    exit_codes.FORBIDDEN: "not allowed: the message names verb and resource",
    exit_codes.NOT_INSTALLED: "hotpool's definitions are not installed in the cluster",
}
"""Exit codes of every command that reads from the API server."""


def run_query(command: str, fleet: FleetOptions, query: Callable[[Reader], Awaitable[T]]) -> T:
    """Run a query and return its result; end the command with one line and an exit code if it fails."""
    return run_connected(command, fleet, lambda connection: query(Reader(connection.api, fleet.namespace)))


def run_connected(
    command: str, fleet: FleetOptions, task: Callable[[Connection], Awaitable[T]], *, role: str = "hotpool-viewer"
) -> T:
    """Run a task as `run_query` a query. `role`: the Role that the command needs."""
    namespace = fleet.namespace  # ends the command if it is unknown

    async def connect() -> T:
        async with connected(Target(fleet.kubeconfig, fleet.context)) as connection:
            return await task(connection)

    try:
        return asyncio.run(connect())
    except ApiUnavailable as error:
        fail(command, *error_message(error, namespace, role=role))
    except CommandError as error:
        fail(command, str(error), error.code)


def error_message(error: ApiUnavailable, namespace: str, *, role: str = "hotpool-viewer") -> tuple[str, int]:
    """Return one line and the exit code for a failed request. `role`: the Role that the command needs."""
    match error.status:
        case 403:
            if " nodes" in error.request:
                reason = "the operator uses v1 Nodes (cordons, labels, health), without which the result could be wrong"
                text = f"not allowed to {error.request}: {reason}; ask for ClusterRole hotpool-{namespace}-viewer"
                return text, exit_codes.FORBIDDEN
            text = f"not allowed to {error.request} in namespace {namespace}: ask for Role {role}"
            return text, exit_codes.FORBIDDEN
        case 401:
            return f"the API server does not accept the credentials: {_line(error)}", exit_codes.FORBIDDEN
        case 404:
            text = "hotpool's definitions are not installed: kubectl apply --server-side -f crds/"
            return f"{text} (request: {error.request})", exit_codes.NOT_INSTALLED
        case None if not error.request:
            return _line(error), exit_codes.UNAVAILABLE
        case None:
            timeout = f"no response in {READ_TIMEOUT:.0f} s"
            reason = str(error).partition(": ")[2].partition(": ")[2] or timeout
            return f"the API server cannot be reached: {reason}", exit_codes.UNAVAILABLE
        case _:
            return _line(error), exit_codes.UNAVAILABLE


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def no_fleet(namespace: str) -> str:
    """Return the text for a namespace without nodes, pools and operator."""
    return f"no fleet in namespace {namespace}: no node, no pool, and no operator has run; see -n and --context"


async def find(reader: Reader, kind: Kind, name: str, namespace: str) -> dict[str, Any]:
    """Return one object. Raises CommandError with similar names if it does not exist."""
    if body := await reader.get(kind, name):
        return body
    known = [item["metadata"]["name"] async for item in reader.each(kind)]
    similar = get_close_matches(name, known, _MAX_SUGGESTIONS, 0.5)
    others = f"there are {len(known)} others" if known else "there is none at all: see -n and --context"
    hint = f"; similar: {', '.join(similar)}" if similar else f"; {others}"
    raise CommandError(f"no {SINGULAR[kind]} {name} in namespace {namespace}{hint}", exit_codes.NOT_FOUND)
