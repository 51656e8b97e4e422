"""HTTP client of the API server: requests and watches, over a single session with the present login (B7, B9). I/O.

Before each request the login's files are checked. If they changed, the client waits for requests in flight, closes the
watches and the session, and opens a new one: never two at a time. Files and plugins that hang delay a request by a part
of its time-out: it is sent with the former credentials. Every failure becomes one of `errors`.
Must not retry, or decide by the content of a response.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Any, Final

import aiohttp
import structlog

from hotpool.common.kube_login import Login, load_login
from hotpool.common.kube_session import new_session
from hotpool.common.kubeconfig import Target, TargetError
from hotpool.common.threads import run_in_thread
from hotpool_agent.blocking import run_blocking
from hotpool_agent.json_access import Json, count
from hotpool_agent.kube.errors import UnauthorizedError, UnavailableError, kube_error, unreachable
from hotpool_agent.kube.responses import (
    Listing,
    WatchEvent,
    enable_keepalive,
    lines,
    parse_event,
    parse_list,
    parse_object,
)
from hotpool_agent.notifier import Notifier

FIELD_MANAGER: Final = "hotpool-agent"
WATCH_SECONDS: Final = 300
"""Time-out of a watch at the API server."""
_IDLE_SECONDS: Final = WATCH_SECONDS + 30
"""Longest time without any data on a watch. The server ends a healthy watch earlier."""
_LOAD_SECONDS: Final = 30.0
"""Time to read the files and run the exec plugin at the start; the plugin's own limit is shorter."""
_WAIT_PART: Final = 0.25
"""Part of a request's time-out for which it waits for the files or the plugin."""
_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})
_LOG: Final = structlog.get_logger(__name__)


class KubeHttpClient:
    """Client with one target's credentials. Must be opened with `open`. `seconds`: time-out of one request."""

    def __init__(self, target: Target, seconds: float) -> None:
        self.credentials_problem: str | None = None
        """Reason why the former credentials are in use, or None."""
        self._target = target
        self._seconds = seconds
        self._login: Login | None = None
        self._session: aiohttp.ClientSession | None = None
        self._refused = False
        """True if the credential must be read again although its files are unchanged."""
        self._reading: asyncio.Future[Login | None] | None = None
        self._refreshing = asyncio.Lock()
        self._requests = 0
        self._request_ended = Notifier()
        self._watches: set[aiohttp.ClientResponse] = set()
        """Open watches. Closing a session does not wake their readers."""

    @property
    def namespace(self) -> str:
        """The namespace of the fleet. Namespace and context stay as first read, even if the kubeconfig changes."""
        return self._target.namespace or ""

    @property
    def server(self) -> str | None:
        """URL of the API server; None while the client is closed."""
        return self._login.server if self._login else None

    async def open(self) -> None:
        """Read the login for the first time. Raises TargetError."""
        try:
            await self._use(await run_blocking(lambda: load_login(self._target), _LOAD_SECONDS))
        except TimeoutError as error:
            raise TargetError(f"the credentials cannot be read within {_LOAD_SECONDS:g} s") from error

    async def close(self) -> None:
        """Close the session, its requests and its watches."""
        if self._reading:
            self._reading.cancel()
        former, self._session, self._login = self._session, None, None
        await self._end(former)

    async def get(self, path: str, query: Mapping[str, str] = _NOTHING) -> Json:
        """Return the object at the path. Raises KubeError."""
        return await self._request("GET", path, params=query)

    async def patch(self, path: str, body: Json, content_type: str) -> Json:
        """Patch an object with a body of this type, and return the object. Raises KubeError."""
        query, headers = {"fieldManager": FIELD_MANAGER}, {"Content-Type": content_type}
        return await self._request("PATCH", path, params=query, json=body, headers=headers)

    async def list(self, path: str, query: Mapping[str, str]) -> Listing:
        """Return the objects that the query selects. Raises KubeError."""
        return parse_list(await self.get(path, query))

    @asynccontextmanager
    async def watch(
        self, path: str, query: Mapping[str, str], version: str, seconds: int = WATCH_SECONDS
    ) -> AsyncIterator[AsyncIterator[WatchEvent]]:
        """Open a watch from the version for `seconds`, and yield its events. They end when the watch ends.

        Raises KubeError if the watch cannot be opened, ExpiredError if its version is too old; so do the events after a
        failure.
        """
        query = {**query, "watch": "true", "resourceVersion": version, "timeoutSeconds": str(seconds)}
        limits = aiohttp.ClientTimeout(total=None, sock_connect=self._seconds, sock_read=_IDLE_SECONDS)
        async with self._sent("GET", path, params=query, timeout=limits) as response:
            self._watches.add(response)
        enable_keepalive(response)
        try:
            yield self._events(response)
        finally:
            self._detach(response)

    async def _events(self, response: aiohttp.ClientResponse) -> AsyncIterator[WatchEvent]:
        try:
            async for line in lines(response.content):
                kind, item = parse_event(line)
                if kind == "ERROR":
                    raise kube_error(count(item.get("code")) or 500, json.dumps(item), {})
                yield kind, item
        except (aiohttp.ClientError, TimeoutError, ValueError, OSError) as error:
            # A replaced session ends its watches; this is not a failure.
            if self._detach(response):
                raise unreachable(error, _IDLE_SECONDS) from error

    def _detach(self, watch: aiohttp.ClientResponse) -> bool:
        """Close the watch. Return False if its session was already closed."""
        attached = watch in self._watches
        self._watches.discard(watch)
        watch.close()
        return attached

    async def _request(self, method: str, path: str, **options: Any) -> Json:
        async with self._sent(method, path, timeout=aiohttp.ClientTimeout(total=self._seconds), **options) as response:
            text = await response.read()
        return parse_object(text)

    @asynccontextmanager
    async def _sent(self, method: str, path: str, **options: Any) -> AsyncIterator[aiohttp.ClientResponse]:
        """Yield the unread response of a successful request. Its session stays open in the block. Raises KubeError.

        `options`: those of aiohttp. Raises UnavailableError if the client is closed or has no credential, as kubectl
        then sends nothing.
        """
        try:
            async with asyncio.timeout(self._seconds):
                await self._refresh()
                if self._login is None or self._session is None:
                    raise UnavailableError((self._login and self._login.problem) or "not connected")
                self._requests += 1
                try:
                    response = await self._session.request(method, self._login.server + path, **options)
                    await self._check(response)
                    yield response
                finally:
                    self._requests -= 1
                    self._request_ended.notify()
        except (aiohttp.ClientError, OSError, RuntimeError, ValueError) as error:
            # RuntimeError: the session was closed as this request began. ValueError: a header is invalid in HTTP.
            raise unreachable(error, self._seconds) from error

    async def _check(self, response: aiohttp.ClientResponse) -> None:
        """Raise KubeError if the request failed."""
        if response.ok:
            return
        # The charset that a proxy names may be none.
        body = (await response.read()).decode(errors="replace")
        failure = kube_error(response.status, body, response.headers)
        if isinstance(failure, UnauthorizedError):
            self._refused = True
            failure = UnauthorizedError("; ".join(filter(None, (str(failure), self.credentials_problem))))
        raise failure

    async def _refresh(self) -> None:
        """Use the login of changed files."""
        async with self._refreshing:
            if self._login is None:
                return
            login, refused, waits = self._login, self._refused, self._refused or self._reading is None
            if self._reading is None:
                read = run_in_thread(lambda: _changed(login, self._target, refused=refused))
                self._reading = asyncio.wrap_future(read)
            await asyncio.wait({self._reading}, timeout=_WAIT_PART * self._seconds if waits else 0.0)
            if not self._reading.done():
                self._set_problem("the file system or the exec plugin of the credentials does not respond")
                return
            try:
                if changed := self._reading.result():
                    await self._request_ended.wait_for(lambda: not self._requests)
                    await self._use(changed)
                else:
                    self.credentials_problem = None
            except (TargetError, OSError) as error:
                self._set_problem(str(error))
            self._reading = None

    def _set_problem(self, problem: str) -> None:
        if self.credentials_problem != problem:
            _LOG.error("credentials not reloaded; using the former ones", error=problem)
        self.credentials_problem = problem

    async def _use(self, login: Login) -> None:
        """Replace the session by one with this login. Without a credential the next request tries again."""
        self._refused = login.problem is not None
        if login.problem:
            self._set_problem(login.problem)
            if self._session is None:
                self._login, self._target = login, login.target
            return
        former, self._session = self._session, new_session(login)
        self._login, self._target, self.credentials_problem = login, login.target, None
        await self._end(former)
        if former:
            _LOG.info("credentials reloaded")

    async def _end(self, session: aiohttp.ClientSession | None) -> None:
        for watch in list(self._watches):
            self._detach(watch)
        if session:
            await session.close()


def _changed(former: Login, target: Target, *, refused: bool) -> Login | None:
    """Return the present login (blocking), or None if the former one is fresh and not refused. Raises TargetError."""
    return load_login(target) if refused or former.is_stale() else None
