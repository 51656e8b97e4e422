"""The client session with the API server, replaced when credentials were rotated or rejected (requirement B9). I/O.

Before each request the login's files are checked. If they changed, the session waits for requests in flight, closes the
watches and itself, and a new one is opened: never two at a time. Files and plugins that hang delay a request by a part
of its time-out: it is sent with the former credentials.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import aiohttp
import structlog
from kubernetes.aio.client import ApiClient

from hotpool.common.kube_client import new_client
from hotpool.common.kube_login import Login, load_login
from hotpool.common.kubeconfig import Target, TargetError
from hotpool_agent.blocking import SingleFlightRunner
from hotpool_agent.kube.errors import UnavailableError
from hotpool_agent.notifier import Notifier

_LOG: Final = structlog.get_logger(__name__)
_LOAD_SECONDS: Final = 30.0
"""Time to read the files and run the exec plugin, whose own limit is shorter."""
_WAIT_PART: Final = 0.25
"""Part of a request's time-out for which it waits for the files or the plugin."""


@dataclass(frozen=True, slots=True)
class _Connection:
    """A client with the credentials of a login; no connection is open yet."""

    login: Login
    client: ApiClient


class Session:
    """A session that must be opened with `open`. Each request then uses `client`. `seconds`: time-out of a request."""

    def __init__(self, target: Target, seconds: float) -> None:
        self.problem: str | None = None
        """Error of the last reload of credentials, after which the former ones stay in use."""
        self._wait_seconds = _WAIT_PART * seconds
        self._runner = SingleFlightRunner()
        self._loading: asyncio.Task[_Connection] | None = None
        self._target = target
        self._connection: _Connection | None = None
        self._reload_requested = False
        self._reload_lock = asyncio.Lock()
        self._requests = 0
        self._request_ended = Notifier()
        self._streams: set[aiohttp.ClientResponse] = set()
        """Open watches. Closing a session does not wake their readers."""

    @property
    def namespace(self) -> str:
        """The fleet's namespace. Namespace and context stay as first read, even if the kubeconfig changes."""
        return self._target.namespace or ""

    async def open(self) -> None:
        """Read the configuration and create the client. Raises TargetError."""
        async with self._reload_lock:
            await self._replace(await self._load())

    async def close(self) -> None:
        """Close the session, its requests and its watches."""
        former, self._connection = self._connection, None
        if self._loading:
            self._loading.cancel()
        await self._close(former)

    def reload_credentials(self) -> None:
        """Read the credentials again before the next request, even if unchanged: the API server returned 401."""
        self._reload_requested = True

    def attach(self, stream: aiohttp.ClientResponse) -> None:
        """Register an open watch, which is closed with this session unless it is detached before."""
        self._streams.add(stream)

    def detach(self, stream: aiohttp.ClientResponse) -> bool:
        """Close the watch. Return False if its session was already closed."""
        attached = stream in self._streams
        self._streams.discard(stream)
        stream.close()
        return attached

    @asynccontextmanager
    async def client(self) -> AsyncIterator[ApiClient]:
        """Yield the client for one request; its session stays open in the block.

        Raises UnavailableError if the session is closed or has no credential, as kubectl then sends nothing.
        """
        await self._refresh()
        if self._connection is None:
            raise UnavailableError("not connected")
        if self._connection.login.problem:
            raise UnavailableError(self._connection.login.problem)
        self._requests += 1
        try:
            yield self._connection.client
        finally:
            self._requests -= 1
            self._request_ended.notify()

    async def _refresh(self) -> None:
        async with self._reload_lock:
            if self._connection is None:
                return
            if self._loading is None:
                if not (self._reload_requested or await self._is_stale(self._connection.login)):
                    return
                self._loading = asyncio.create_task(self._load())
            await asyncio.wait({self._loading}, timeout=self._wait_seconds)
            if not self._loading.done():
                self._set_problem("credentials not read yet")
                return
            await self._request_ended.wait_for(lambda: not self._requests)
            loading, self._loading = self._loading, None
            try:
                await self._replace(loading.result())
            except TargetError as error:
                self._set_problem(str(error))

    async def _is_stale(self, login: Login) -> bool:
        """Return True if the login's files have changed or it expired, False also if the file system hangs."""
        if self._runner.is_running("files"):
            return False
        try:
            async with asyncio.timeout(self._wait_seconds):
                changed = await self._runner.run("files", login.is_stale)
        except TimeoutError:
            self._set_problem("the file system of the credentials does not respond")
            return False
        if not changed and not self._reload_requested:
            self.problem = None
        return changed

    async def _load(self) -> _Connection:
        """Load the login in a thread, of which there is one at a time. Raises TargetError."""
        try:
            async with asyncio.timeout(_LOAD_SECONDS):
                return await self._runner.run("load", lambda: _connect(self._target))
        except TimeoutError as error:
            raise TargetError(f"the credentials cannot be read within {_LOAD_SECONDS:g} s") from error

    def _set_problem(self, problem: str) -> None:
        if self.problem != problem:
            _LOG.error("credentials not reloaded; using the former ones", error=problem)
        self.problem = problem

    async def _replace(self, connection: _Connection) -> None:
        login = connection.login
        if login.problem:
            # The next request tries again.
            self._reload_requested = True
            self._set_problem(login.problem)
            if self._connection:
                await connection.client.close()
                return
            self._connection, self._target = connection, login.target
            return
        former, self._connection = self._connection, connection
        self._target, self._reload_requested, self.problem = login.target, False, None
        if former:
            await self._close(former)
            _LOG.info("credentials reloaded")

    async def _close(self, connection: _Connection | None) -> None:
        for stream in list(self._streams):
            self.detach(stream)
        if connection:
            await connection.client.close()


def _connect(target: Target) -> _Connection:
    """Load a login and create its client. Raises TargetError."""
    login = load_login(target)
    return _Connection(login, new_client(login))
