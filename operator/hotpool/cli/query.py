"""Commands that ask the cluster: how they connect, and how they end where there is no answer.

It knows no command.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from difflib import get_close_matches
from typing import Any, Final, TypeVar

from hotpool.cli.options import CommandError, FleetOptions, fail
from hotpool.common import cli_help
from hotpool.core.model import Kind
from hotpool.kube.client import ApiUnavailable, ClusterTarget
from hotpool.kube.reader import READ_TIMEOUT, Reader, open_reader

T = TypeVar("T")

logging.getLogger("kubernetes").addHandler(logging.NullHandler())  # what it warns of is said by us, in one line

SINGULAR: Final = {Kind.NODE: "nodecapability", Kind.POOL: "nodepool", Kind.GENERATOR: "nodepoolgenerator"}
_NEAR: Final = 3


def run_query(command: str, place: FleetOptions, question: Callable[[Reader], Awaitable[T]]) -> T:
    """Ask the cluster; where there is no answer, the command ends with one line and its exit code."""

    async def ask() -> T:
        async with open_reader(ClusterTarget(place.namespace, place.kubeconfig, place.context)) as reader:
            return await question(reader)

    try:
        return asyncio.run(ask())
    except ApiUnavailable as error:
        fail(command, *error_message(error, place.namespace))
    except CommandError as error:
        fail(command, str(error), error.code)


def error_message(error: ApiUnavailable, namespace: str, *, role: str = "hotpool-viewer") -> tuple[str, int]:
    """One line and the exit code for an answer that did not come. `role`: what the command needs."""
    match error.status:
        case 403:
            if " nodes" in error.request:
                words = "the operator follows v1 Nodes (cordons, labels), and without them the answer could be wrong"
                who = f"ClusterRole hotpool-{namespace}-viewer"
                return f"not allowed to {error.request}: {words}; ask for {who}", cli_help.FORBIDDEN
            words = f"not allowed to {error.request} in namespace {namespace}: ask for Role {role}"
            return words, cli_help.FORBIDDEN
        case 401:
            return f"the API server does not accept the credentials: {_line(error)}", cli_help.FORBIDDEN
        case 404:
            words = "hotpool's definitions are not installed: kubectl apply --server-side -f crds/"
            return f"{words} (asked to {error.request})", cli_help.NOT_INSTALLED
        case None if not error.request:
            return _line(error), cli_help.UNAVAILABLE
        case None:
            late = f"it did not answer in {READ_TIMEOUT:.0f} s"
            why = str(error).partition(": ")[2].partition(": ")[2] or late
            return f"the API server cannot be reached: {why}", cli_help.UNAVAILABLE
        case _:
            return _line(error), cli_help.UNAVAILABLE


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


async def find(reader: Reader, kind: Kind, name: str, namespace: str) -> dict[str, Any]:
    """One object; where there is none, the command ends with names that are near to it."""
    if found := await reader.get(kind, name):
        return found
    known = [item["metadata"]["name"] async for item in reader.each(kind)]
    near = get_close_matches(name, known, _NEAR, 0.5)
    hint = f"; near to it: {', '.join(near)}" if near else f"; there are {len(known)} others" if known else ""
    raise CommandError(f"no {SINGULAR[kind]} {name} in namespace {namespace}{hint}", cli_help.NOT_FOUND)
