"""Responses of the API server: objects, lists and lines of a watch. Any of them may come from a proxy before it."""

import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Final

import aiohttp

from hotpool_agent.json_access import Json, mapping
from hotpool_agent.kube.errors import UnavailableError
from hotpool_agent.untrusted_text import parse_json

_MAX_LINE_BYTES: Final = 16 * 1024 * 1024
"""More than the largest object of an API server: 1.5 MiB, times six for characters that JSON escapes."""
_KEEPALIVE: Final = {socket.TCP_KEEPIDLE: 15, socket.TCP_KEEPINTVL: 5, socket.TCP_KEEPCNT: 3}
"""Keep-alive: a watch whose peer is gone, as after a suspend, ends within 30 s. A proxy answers these probes itself:
behind one the watch ends after its longest time without data."""

WatchEvent = tuple[str, Json]
"""Type and object of a watch event."""


@dataclass(frozen=True, slots=True)
class Listing:
    """Items of a list, and the resourceVersion to watch from."""

    items: list[Json]
    version: str


def parse_object(text: bytes) -> Json:
    """Parse a JSON object. Raises UnavailableError."""
    try:
        value = parse_json(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise UnavailableError("the response is not a JSON object; check for a proxy in front of the API server")
    return value


def parse_list(listing: Json) -> Listing:
    """Return the parts of a list. Raises UnavailableError."""
    items, version = listing.get("items"), mapping(listing.get("metadata")).get("resourceVersion")
    if not isinstance(items, list) or not isinstance(version, str) or not all(isinstance(item, dict) for item in items):
        raise UnavailableError("the response is not a list; check for a proxy in front of the API server")
    return Listing(items, version)


def parse_event(line: bytes) -> WatchEvent:
    """Parse a line of a watch. Raises UnavailableError."""
    event = parse_object(line)
    kind, item = event.get("type"), event.get("object")
    if not isinstance(kind, str) or not isinstance(item, dict):
        raise UnavailableError("the watch returned a line that is not an event")
    return kind, item


async def lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Yield the lines of a response. aiohttp's own reader fails at 4 MiB, and a pod can be as large."""
    rest = bytearray()
    async for chunk in content.iter_any():
        *complete, last = chunk.split(b"\n")
        for line in complete:
            yield bytes(rest + line)
            rest.clear()
        rest += last
        if len(rest) > _MAX_LINE_BYTES:
            raise ValueError(f"the watch sent a line of more than {_MAX_LINE_BYTES} bytes")
    if rest:
        yield bytes(rest)


def enable_keepalive(response: aiohttp.ClientResponse) -> None:
    """Let the kernel check the peer of an idle connection by TCP keep-alive."""
    transport = response.connection.transport if response.connection else None
    sock = transport.get_extra_info("socket") if transport else None
    if sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEPALIVE.items():
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
