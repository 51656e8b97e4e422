"""The one client session with the API server, opened anew when credentials were rotated or refused (B9). I/O.

Before each request it looks whether the login's files changed; then requests under way are awaited, streams and the old
session are closed, and the next one takes its place: never two at a time.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import aiohttp
import structlog
from kubernetes.aio.client import ApiClient

from hotpool_agent.kube.credentials import Login, Target, TargetError, read
from hotpool_agent.kube.errors import UnavailableError
from hotpool_agent.notifier import Notifier

_LOG: Final = structlog.get_logger(__name__)


class Session:
    """Open it with `open`; then `client` for each request."""

    def __init__(self, target: Target) -> None:
        self.problem: str | None = None
        """Why rotated credentials could not be read; the former ones are used on."""
        self._target = target
        self._login: Login | None = None
        self._refused = False
        self._renewing = asyncio.Lock()
        self._requests = 0
        self._over = Notifier()
        self._streams: set[aiohttp.ClientResponse] = set()
        """Answers that are read for long: closing a session does not wake who reads them."""

    @property
    def namespace(self) -> str:
        """The fleet's namespace. It and the context stay as first read, whatever a kubeconfig says later."""
        return self._target.namespace or ""

    async def open(self) -> None:
        """Read the configuration and be ready for requests. Raises TargetError."""
        async with self._renewing:
            await self._replace()

    async def close(self) -> None:
        """End the session, and with it what is under way."""
        former, self._login = self._login, None
        await self._end(former)

    def refused(self) -> None:
        """The API server answered 401: read the credentials again before the next request, changed or not."""
        self._refused = True

    def attach(self, stream: aiohttp.ClientResponse) -> None:
        """The answer is read until it is detached, or until this session ends, which breaks it off."""
        self._streams.add(stream)

    def detach(self, stream: aiohttp.ClientResponse) -> bool:
        """Close the answer; False if its session has ended."""
        attached = stream in self._streams
        self._streams.discard(stream)
        stream.close()
        return attached

    @asynccontextmanager
    async def client(self) -> AsyncIterator[ApiClient]:
        """The client for one request, whose session stays open in the block. Raises UnavailableError when closed."""
        await self._refresh()
        if self._login is None:
            raise UnavailableError("not connected")
        self._requests += 1
        try:
            yield self._login.client
        finally:
            self._requests -= 1
            self._over.notify()

    async def _refresh(self) -> None:
        async with self._renewing:
            if self._login is None or not (self._refused or self._login.rotated()):
                return
            await self._over.wait_for(lambda: not self._requests)
            try:
                await self._replace()
            except TargetError as error:
                if self.problem != str(error):
                    _LOG.error("credentials not read again; using the former ones", error=str(error))
                self.problem = str(error)

    async def _replace(self) -> None:
        login = await read(self._target)
        former, self._login = self._login, login
        self._target, self._refused, self.problem = login.target, False, None
        if former:
            await self._end(former)
            _LOG.info("credentials read again")

    async def _end(self, login: Login | None) -> None:
        for stream in list(self._streams):
            self.detach(stream)
        if login:
            await login.client.close()
