"""One request to the API server and its answer, or a watch, over the one session (requirements B7, B9). I/O.

With `session` and `credentials` the only importers of kubernetes. Every failure becomes one of the errors of
`problems`; when to try again and what to make of an answer is not decided here.
"""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
from kubernetes.aio.client import ApiClient

from hotpool_agent.kube.credentials import Target
from hotpool_agent.kube.errors import UnauthorizedError, UnavailableError, kube_error, unreachable
from hotpool_agent.kube.session import Session

MANAGER: Final = "hotpool-agent"
WATCH_SECONDS: Final = 300
"""A watch is asked to end after so long at most."""
_SILENCE_SECONDS: Final = WATCH_SECONDS + 30
"""A watch in which nothing at all was heard for so long is given up: the server ends it earlier."""
_LINE_BYTES: Final = 16 * 1024 * 1024
"""More than the largest object that an API server stores, 1.5 MiB, with six characters for each that JSON escapes."""
_PROBES: Final = {socket.TCP_KEEPIDLE: 15, socket.TCP_KEEPINTVL: 5, socket.TCP_KEEPCNT: 3}
"""A watch whose peer is gone, as after a suspend, breaks within 30 s; behind a proxy, which answers these probes
itself, within _SILENCE_SECONDS."""

Json = dict[str, Any]
Event = tuple[str, Json]
"""Type and object of an event of a watch."""


@dataclass(frozen=True, slots=True)
class Listing:
    """What a list held, and the version to watch from."""

    items: list[Json]
    version: str


@dataclass(frozen=True, slots=True)
class KubeRequest:
    """One request. `kind`: the content type of `body`."""

    method: str
    path: str
    body: Json | None = None
    kind: str | None = None
    query: dict[str, str] = field(default_factory=lambda: {"fieldManager": MANAGER})


class KubeHttpClient:
    """Requests with one target's credentials. Open it with `open`; `seconds` is the time-out of one request."""

    def __init__(self, target: Target, seconds: float) -> None:
        self._session = Session(target)
        self._seconds = seconds

    @property
    def namespace(self) -> str:
        """The namespace of the fleet."""
        return self._session.namespace

    async def open(self) -> None:
        """Read the configuration. Raises TargetError."""
        await self._session.open()

    async def close(self) -> None:
        """Close the connection."""
        await self._session.close()

    async def request(self, ask: KubeRequest) -> Json:
        """The JSON answer of a successful request. Raises Problem."""
        try:
            async with asyncio.timeout(self._seconds), self._session.client() as client:
                response = await self._send(client, ask, aiohttp.ClientTimeout(total=self._seconds))
                text = await response.read()
        except (aiohttp.ClientError, OSError) as error:
            raise unreachable(error, self._seconds) from error
        return _object(text)

    async def list(self, ask: KubeRequest) -> Listing:
        """All objects that the request asks for. Raises Problem."""
        return _listed(await self.request(ask))

    @asynccontextmanager
    async def watching(self, ask: KubeRequest) -> AsyncIterator[AsyncIterator[Event]]:
        """An open watch: its events, which end when the stream does, and raise Problem when that was no good end.

        Raises Problem also when it cannot be opened; ExpiredError when the version asked for is too old.
        """
        response = await self._open(ask)
        try:
            yield self._events(response)
        finally:
            self._session.detach(response)

    async def _events(self, response: aiohttp.ClientResponse) -> AsyncIterator[Event]:
        try:
            async for line in _lines(response.content):
                kind, item = _event(line)
                if kind == "ERROR":
                    raise kube_error(int(item.get("code") or 500), json.dumps(item), {})
                yield kind, item
        except (aiohttp.ClientError, TimeoutError, ValueError, OSError) as error:
            # A session that was replaced ends its watches; that is no failure.
            if self._session.detach(response):
                raise unreachable(error, _SILENCE_SECONDS) from error

    async def _open(self, ask: KubeRequest) -> aiohttp.ClientResponse:
        """An answer to be read for long, attached to the session. Raises Problem."""
        limits = aiohttp.ClientTimeout(total=None, sock_connect=self._seconds, sock_read=_SILENCE_SECONDS)
        try:
            async with asyncio.timeout(self._seconds), self._session.client() as client:
                response = await self._send(client, ask, limits)
                self._session.attach(response)
        except (aiohttp.ClientError, OSError) as error:
            raise unreachable(error, self._seconds) from error
        _probe(response)
        return response

    async def _send(self, client: ApiClient, ask: KubeRequest, limits: aiohttp.ClientTimeout) -> aiohttp.ClientResponse:
        """The response of a successful request, unread. Raises Problem, or what the connection died of."""
        headers = {"Accept": "application/json"} | ({"Content-Type": ask.kind} if ask.kind else {})
        query = list(ask.query.items())
        try:
            _, url, headers, _, _ = await client.param_serialize(
                ask.method, ask.path, query_params=query, header_params=headers, auth_settings=["BearerToken"]
            )
            # The body goes past param_serialize, which would copy it deeply.
            answer = await client.call_api(ask.method, url, headers, ask.body, _request_timeout=limits)
        except (RuntimeError, ValueError) as error:
            # RuntimeError: the session was closed as this request began. ValueError: a header that HTTP cannot carry.
            raise unreachable(error, self._seconds) from error
        response: aiohttp.ClientResponse = answer.response
        if response.ok:
            return response
        failure = kube_error(response.status, await response.text(errors="replace"), response.headers)
        if isinstance(failure, UnauthorizedError):
            failure = UnauthorizedError("; ".join(filter(None, (str(failure), self._session.problem))))
            self._session.refused()
        raise failure


def _object(text: bytes) -> Json:
    try:
        answer = json.loads(text)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise UnavailableError("the answer is no JSON object; is there something else before the API server?")
    return answer


def part(whole: Json, key: str) -> Json:
    """The object under the key; an empty one if there is none."""
    found = whole.get(key)
    return found if isinstance(found, dict) else {}


def _listed(listing: Json) -> Listing:
    items, version = listing.get("items"), part(listing, "metadata").get("resourceVersion")
    if not isinstance(items, list) or not isinstance(version, str) or not all(isinstance(item, dict) for item in items):
        raise UnavailableError("the answer is no list; is there something else before the API server?")
    return Listing(items, version)


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """The lines of an answer. aiohttp's own way dies of one of 4 MiB, and somebody's pod can be as large."""
    rest = bytearray()
    async for chunk in content.iter_any():
        *whole, last = chunk.split(b"\n")
        for line in whole:
            yield bytes(rest + line)
            rest.clear()
        rest += last
        if len(rest) > _LINE_BYTES:
            raise ValueError(f"a line of more than {_LINE_BYTES} bytes")
    if rest:
        yield bytes(rest)


def _event(line: bytes) -> Event:
    """Type and object of a line of a watch. Raises UnavailableError."""
    event = _object(line)
    kind, item = event.get("type"), event.get("object")
    if not isinstance(kind, str) or not isinstance(item, dict):
        raise UnavailableError("the watch sent something that is no event")
    return kind, item


def _probe(response: aiohttp.ClientResponse) -> None:
    """Have the kernel ask the peer of a silent connection whether it is still there."""
    transport = response.connection.transport if response.connection else None
    link = transport.get_extra_info("socket") if transport else None
    if link:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _PROBES.items():
            link.setsockopt(socket.IPPROTO_TCP, option, value)
