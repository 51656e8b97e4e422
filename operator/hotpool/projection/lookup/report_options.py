"""Arguments of failure reports.

Pure: must not do I/O.
"""

import os
import re
import socket
from collections.abc import Collection
from typing import Final, Literal, TypeAlias

from hotpool.projection.failures import NODE_ITSELF
from hotpool.projection.functions import CommandArgs
from hotpool.projection.lookup.results import Picked, Reservation

FailureKind: TypeAlias = Literal["unreachable", "error"]
"""unreachable: no connection, or no response at all. error: a response that says that the service failed."""

SUCCESS: Final = "success"
_KINDS: Final = frozenset({"unreachable", "error"})
_SOURCE: Final = re.compile(r"[A-Za-z0-9._:/@+-]{1,128}")
_INVALID: Final = re.compile(r"[^A-Za-z0-9._-]")


def default_source() -> str:
    """Return `host/pid` of this process, which differs in a forked child."""
    return f"{_INVALID.sub('-', socket.gethostname())[:100] or 'host'}/{os.getpid()}"


def check_source(source: str) -> str:
    """Return a valid source unchanged. Raises ValueError."""
    if not _SOURCE.fullmatch(source):
        raise ValueError(f"source must have 1 to 128 letters, digits and ._:/@+- : {source!r}")
    return source


def outcome_of(failed: FailureKind | Literal[False]) -> str:
    """Return the outcome of a request. Raises ValueError."""
    if failed is False:
        return SUCCESS
    if failed not in _KINDS:
        raise ValueError(f"a failure must be unreachable or error: {failed!r}")
    return failed


def outcome_arguments(
    source: str, picked: Picked | Reservation, outcome: str, types: Collection[str] | None
) -> CommandArgs:
    """Return the arguments of `report_outcome`: of the picked service of each type, or of the node without endpoints.

    Raises LookupError if the node has no endpoint of one of the types, TypeError or ValueError for invalid arguments.
    """
    if isinstance(picked, str) or not picked.pool:
        raise TypeError("a report needs the result of a pick or its reservation, not an id")
    if isinstance(types, str):
        raise TypeError("types must be a collection of types, not one string")
    missing = [kind for kind in types or () if kind not in picked.endpoints]
    if missing:
        raise LookupError(f"node {picked.node} was picked without an endpoint of type {missing[0]}")
    services = {picked.endpoints[kind][0] for kind in (picked.endpoints if types is None else types)}
    words: list[str | int] = [source, picked.pool, outcome, picked.node]
    for endpoint in services:
        words += (endpoint.service, endpoint.port, endpoint.address)
    return (*words, *(() if services else (NODE_ITSELF,)))
