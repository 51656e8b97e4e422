"""Queries of the API server: connection, error messages and exit codes."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

from hotpool.cli.options import CommandError, FleetOptions, fail
from hotpool.common import exit_codes
from hotpool.common.kubeconfig import Target
from hotpool.common.similar_names import similar_hint
from hotpool.core.lists_of_words import listed
from hotpool.core.model import Kind
from hotpool.kube.client import ApiUnavailable, Connection, connected
from hotpool.kube.reader import READ_TIMEOUT, Reader

T = TypeVar("T")

SINGULAR: Final = {Kind.NODE: "nodecapability", Kind.POOL: "nodepool", Kind.GENERATOR: "nodepoolgenerator"}
_MAX_FLEETS: Final = 5
"""Fleets named in a message; of the others it has the number."""
_GENERATED: Final = re.compile(r"[a-z0-9-]+-[0-9a-f]{8}")
"""End of the name of a generated pool: slug and hash."""


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


async def no_fleet(reader: Reader, namespace: str) -> str:
    """Return the text for a namespace in which nothing was found, and no operator has led.

    It names fleets in other namespaces, similar names only if there are any, as far as this account may list them.
    """
    text = f"no fleet in namespace {namespace}: no operator has run in it; see -n and --context"
    try:
        fleets = sorted(await reader.fleets())
    except ApiUnavailable:
        return text
    others = f"; fleets: {listed(fleets, _MAX_FLEETS)}" if fleets else ""
    return text + (similar_hint(namespace, fleets) or others)


async def _never_led(reader: Reader) -> bool:
    """Return True if no operator has led in this namespace. False without the right to know."""
    try:
        return not any(await reader.operator_leases())
    except ApiUnavailable:
        return False


async def find(reader: Reader, kind: Kind, name: str, namespace: str) -> dict[str, Any]:
    """Return one object; a generated pool also by `generator/key`. Raises CommandError if it does not exist.

    The message has similar names.
    """
    if kind is Kind.POOL and "/" in name:
        generator, _, key = name.partition("/")
        return await _find_generated(reader, generator, key, namespace)
    if body := await reader.get(kind, name):
        return body
    known = [item["metadata"]["name"] async for item in reader.each(kind)]
    if not known and await _never_led(reader):
        raise CommandError(await no_fleet(reader, namespace), exit_codes.NOT_FOUND)
    others = f"there are {len(known)} others" if known else "there is none at all: see -n and --context"
    hint = similar_hint(name, known) or f"; {others}"
    retired = await _retired(reader, name) if kind is Kind.POOL else ""
    text = f"no {SINGULAR[kind]} {name} in namespace {namespace}{hint}{retired}"
    raise CommandError(text, exit_codes.NOT_FOUND)


async def find_any(reader: Reader, name: str, namespace: str) -> Kind:
    """Return whether a name is that of a node or of a pool. Raises CommandError if it is neither, or both.

    The message has similar names of both kinds.
    """
    if "/" in name:
        return Kind.POOL
    node, pool = await reader.get(Kind.NODE, name), await reader.get(Kind.POOL, name)
    if node and pool:
        text = f"{name} is a node and a pool: choose by --node {name} or --pool {name}"
        raise CommandError(text, exit_codes.USAGE)
    if node or pool:
        return Kind.NODE if node else Kind.POOL
    nodes, pools = [[item["metadata"]["name"] async for item in reader.each(kind)] for kind in (Kind.NODE, Kind.POOL)]
    if not (nodes or pools) and await _never_led(reader):
        raise CommandError(await no_fleet(reader, namespace), exit_codes.NOT_FOUND)
    others = f"; there are {len(nodes)} nodes and {len(pools)} pools: see -n and --context"
    hint = (similar_hint(name, [*nodes, *pools]) or others) + await _retired(reader, name)
    raise CommandError(f"no node or pool {name} in namespace {namespace}{hint}", exit_codes.NOT_FOUND)


async def _find_generated(reader: Reader, generator: str, key: str, namespace: str) -> dict[str, Any]:
    """Return the pool that a generator made for a key. Raises CommandError with similar keys if there is none."""
    keys: dict[str, str] = {}
    async for body in reader.each(Kind.POOL):
        made = (body.get("spec") or {}).get("generated") or {}
        if made.get("by") != generator:
            continue
        if made.get("key") == key:
            return body
        keys[made.get("key") or ""] = body["metadata"]["name"]
    others = f"; it has {len(keys)} other pools" if keys else "; it has no pool, or there is no such generator"
    text = f"nodepoolgenerator {generator} in namespace {namespace} has no pool for key {key}"
    raise CommandError(f"{text}{similar_hint(key, keys) or others}", exit_codes.NOT_FOUND)


async def _retired(reader: Reader, name: str) -> str:
    """Return what became of a name that a generator gives to its pools; empty for another name."""
    try:
        generators = [item["metadata"]["name"] async for item in reader.each(Kind.GENERATOR)]
    except ApiUnavailable:
        return ""
    makers = [item for item in generators if name.startswith(f"{item}-")]
    maker = max((item for item in makers if _GENERATED.fullmatch(name.removeprefix(f"{item}-"))), default="", key=len)
    if not maker:
        return ""
    return f"; nodepoolgenerator {maker} deletes a pool whose key no node offers: see its notAdmitted and graceSeconds"
