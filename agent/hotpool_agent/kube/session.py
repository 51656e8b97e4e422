"""The client session with the API server, replaced when credentials were rotated or rejected (requirement B9). I/O.

Before each request the login's files are checked. If they changed, the session waits for requests in flight, closes the
watches and itself, and a new one is opened: never two at a time.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import aiohttp
import structlog
from kubernetes.aio.client import ApiClient

from hotpool_agent.kube.credentials import Login, Target, TargetError, load_login
from hotpool_agent.kube.errors import UnavailableError
from hotpool_agent.notifier import Notifier

_LOG: Final = structlog.get_logger(__name__)


class Session:
    """A session that must be opened with `open`. Each request then uses `client`."""

    def __init__(self, target: Target) -> None:
        self.problem: str | None = None
        """Error of the last reload of credentials, after which the former ones stay in use."""
        self._target = target
        self._login: Login | None = None
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
            await self._replace()

    async def close(self) -> None:
        """Close the session, its requests and its watches."""
        former, self._login = self._login, None
        await self._close_login(former)

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
        """Yield the client for one request; its session stays open in the block. Raises UnavailableError if closed."""
        await self._refresh()
        if self._login is None:
            raise UnavailableError("not connected")
        self._requests += 1
        try:
            yield self._login.client
        finally:
            self._requests -= 1
            self._request_ended.notify()

    async def _refresh(self) -> None:
        async with self._reload_lock:
            if self._login is None or not (self._reload_requested or self._login.files_changed()):
                return
            await self._request_ended.wait_for(lambda: not self._requests)
            try:
                await self._replace()
            except TargetError as error:
                if self.problem != str(error):
                    _LOG.error("credentials not reloaded; using the former ones", error=str(error))
                self.problem = str(error)

    async def _replace(self) -> None:
        login = await load_login(self._target)
        former, self._login = self._login, login
        self._target, self._reload_requested, self.problem = login.target, False, None
        if former:
            await self._close_login(former)
            _LOG.info("credentials reloaded")

    async def _close_login(self, login: Login | None) -> None:
        for stream in list(self._streams):
            self.detach(stream)
        if login:
            await login.client.close()
