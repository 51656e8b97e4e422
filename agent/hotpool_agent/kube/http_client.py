"""Requests to the API server, and watches, over a single session (requirements B7, B9). I/O.

Besides `session` and `credentials` the only module that may import kubernetes. Every failure becomes one of `errors`.
Must not retry, or decide by the content of a response.
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

from hotpool.common.kubeconfig import Target
from hotpool_agent.kube.errors import UnauthorizedError, UnavailableError, kube_error, unreachable
from hotpool_agent.kube.session import Session
from hotpool_agent.untrusted_text import parse_json

FIELD_MANAGER: Final = "hotpool-agent"
WATCH_SECONDS: Final = 300
"""Time-out of a watch at the API server."""
_IDLE_SECONDS: Final = WATCH_SECONDS + 30
"""Longest time without any data on a watch. The server ends a healthy watch earlier."""
_MAX_LINE_BYTES: Final = 16 * 1024 * 1024
"""More than the largest object of an API server: 1.5 MiB, times six for characters that JSON escapes."""
_KEEPALIVE: Final = {socket.TCP_KEEPIDLE: 15, socket.TCP_KEEPINTVL: 5, socket.TCP_KEEPCNT: 3}
"""Keep-alive: a watch whose peer is gone, as after a suspend, ends within 30 s. A proxy answers these probes itself:
behind one the watch ends within _IDLE_SECONDS."""

Json = dict[str, Any]
WatchEvent = tuple[str, Json]
"""Type and object of a watch event."""


@dataclass(frozen=True, slots=True)
class Listing:
    """Items of a list, and the resourceVersion to watch from."""

    items: list[Json]
    version: str


@dataclass(frozen=True, slots=True)
class KubeRequest:
    """One request. `content_type`: that of `body`."""

    method: str
    path: str
    body: Json | None = None
    content_type: str | None = None
    query: dict[str, str] = field(default_factory=lambda: {"fieldManager": FIELD_MANAGER})


class KubeHttpClient:
    """Client with one target's credentials. Must be opened with `open`. `seconds`: time-out of one request."""

    def __init__(self, target: Target, seconds: float) -> None:
        self._session = Session(target, seconds)
        self._seconds = seconds

    @property
    def namespace(self) -> str:
        """The namespace of the fleet."""
        return self._session.namespace

    @property
    def credentials_problem(self) -> str | None:
        """Reason why the former credentials are in use, or None."""
        return self._session.problem

    async def open(self) -> None:
        """Read the configuration. Raises TargetError."""
        await self._session.open()

    async def close(self) -> None:
        """Close the connection."""
        await self._session.close()

    async def request(self, request: KubeRequest) -> Json:
        """Return the JSON object that the API server returns. Raises KubeError."""
        try:
            async with asyncio.timeout(self._seconds), self._session.client() as client:
                response = await self._send(client, request, aiohttp.ClientTimeout(total=self._seconds))
                text = await response.read()
        except (aiohttp.ClientError, OSError) as error:
            raise unreachable(error, self._seconds) from error
        return _parse_object(text)

    async def list(self, request: KubeRequest) -> Listing:
        """Return the objects that a list request selects. Raises KubeError."""
        return _parse_list(await self.request(request))

    @asynccontextmanager
    async def watch(self, request: KubeRequest) -> AsyncIterator[AsyncIterator[WatchEvent]]:
        """Open a watch and yield its events. They end when the watch ends; after a failure they raise KubeError.

        Raises KubeError if the watch cannot be opened: ExpiredError if its version is too old.
        """
        response = await self._open(request)
        try:
            yield self._events(response)
        finally:
            self._session.detach(response)

    async def _events(self, response: aiohttp.ClientResponse) -> AsyncIterator[WatchEvent]:
        try:
            async for line in _lines(response.content):
                kind, item = _parse_event(line)
                if kind == "ERROR":
                    raise kube_error(_code(item), json.dumps(item), {})
                yield kind, item
        except (aiohttp.ClientError, TimeoutError, ValueError, OSError) as error:
            # A replaced session ends its watches; this is not a failure.
            if self._session.detach(response):
                raise unreachable(error, _IDLE_SECONDS) from error

    async def _open(self, request: KubeRequest) -> aiohttp.ClientResponse:
        """Open a streamed response that is attached to the session. Raises KubeError."""
        limits = aiohttp.ClientTimeout(total=None, sock_connect=self._seconds, sock_read=_IDLE_SECONDS)
        try:
            async with asyncio.timeout(self._seconds), self._session.client() as client:
                response = await self._send(client, request, limits)
                self._session.attach(response)
        except (aiohttp.ClientError, OSError) as error:
            raise unreachable(error, self._seconds) from error
        _enable_keepalive(response)
        return response

    async def _send(
        self, client: ApiClient, request: KubeRequest, limits: aiohttp.ClientTimeout
    ) -> aiohttp.ClientResponse:
        """Return the unread response of a successful request. Raises KubeError, or the error of the connection."""
        content_type = {"Content-Type": request.content_type} if request.content_type else {}
        headers, query = {"Accept": "application/json"} | content_type, list(request.query.items())
        try:
            _, url, headers, _, _ = await client.param_serialize(
                request.method, request.path, query_params=query, header_params=headers
            )
            # The body goes past param_serialize, which would copy it deeply.
            wrapped = await client.call_api(request.method, url, headers, request.body, _request_timeout=limits)
        except (RuntimeError, ValueError) as error:
            # RuntimeError: the session was closed as this request began. ValueError: a header is invalid in HTTP.
            raise unreachable(error, self._seconds) from error
        response: aiohttp.ClientResponse = wrapped.response
        if response.ok:
            return response
        # The charset that a proxy names may be none.
        body = (await response.read()).decode(errors="replace")
        failure = kube_error(response.status, body, response.headers)
        if isinstance(failure, UnauthorizedError):
            failure = UnauthorizedError("; ".join(filter(None, (str(failure), self._session.problem))))
            self._session.reload_credentials()
        raise failure


def _parse_object(text: bytes) -> Json:
    try:
        value = parse_json(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise UnavailableError("the response is not a JSON object; check for a proxy in front of the API server")
    return value


def object_at(parent: Json, key: str) -> Json:
    """Return the object under the key, or an empty one."""
    value = parent.get(key)
    return value if isinstance(value, dict) else {}


def _parse_list(listing: Json) -> Listing:
    items, version = listing.get("items"), object_at(listing, "metadata").get("resourceVersion")
    if not isinstance(items, list) or not isinstance(version, str) or not all(isinstance(item, dict) for item in items):
        raise UnavailableError("the response is not a list; check for a proxy in front of the API server")
    return Listing(items, version)


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
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


def _parse_event(line: bytes) -> WatchEvent:
    """Parse a line of a watch. Raises UnavailableError."""
    event = _parse_object(line)
    kind, item = event.get("type"), event.get("object")
    if not isinstance(kind, str) or not isinstance(item, dict):
        raise UnavailableError("the watch returned a line that is not an event")
    return kind, item


def _code(status: Json) -> int:
    code = status.get("code")
    return code if isinstance(code, int) else 500


def _enable_keepalive(response: aiohttp.ClientResponse) -> None:
    """Let the kernel check the peer of an idle connection by TCP keep-alive."""
    transport = response.connection.transport if response.connection else None
    sock = transport.get_extra_info("socket") if transport else None
    if sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _KEEPALIVE.items():
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
