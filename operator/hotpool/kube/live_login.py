"""The login of a program that runs on (requirements B9, F5), read again when it changed, expired or was refused.

Requests get the present credential, and never wait for files or exec plugins unless the API server refused theirs.
Address and proxy stay as first read.
"""

import asyncio
from dataclasses import replace
from typing import Final

import aiohttp
from aiohttp.client_middlewares import ClientHandlerType

from hotpool.common.kube_login import Login, load_login
from hotpool.common.kubeconfig import Target, TargetError
from hotpool.common.threads import run_in_thread

CHECK_SECONDS: Final = 10.0
"""Shortest time between two looks at the files, and between two readings after a 401."""
_LOAD_SECONDS: Final = 30.0
"""Time to read the files and run the exec plugin, whose own limit is shorter."""
_UNAUTHORIZED: Final = 401


class LiveLogin:
    """The present login of one target. `current` may be read in any thread; the rest belongs to the event loop."""

    def __init__(self, login: Login) -> None:
        self.current = login
        self._loop = asyncio.get_running_loop()
        self._checked = self._loop.time()
        self._reading: asyncio.Task[None] | None = None
        self._problem: str | None = None

    @classmethod
    async def open(cls, target: Target) -> "LiveLogin":
        """Read the login for the first time. Raises TargetError. An exec plugin may ask a person at the terminal."""
        login = await asyncio.wrap_future(run_in_thread(lambda: load_login(target, interactive=True)))
        if login.problem:
            raise TargetError(login.problem)
        return cls(login)

    async def authorize(self, request: aiohttp.ClientRequest, handler: ClientHandlerType) -> aiohttp.ClientResponse:
        """Send a request with the credential, as an aiohttp middleware, and once more after a 401 with a new one."""
        self._start_reading(unless_fresh=True)
        used = self.current
        response = await handler(_authorized(request, used))
        if response.status != _UNAUTHORIZED:
            return response
        await self._renew_after(used)
        if self.current is used:
            return response
        response.close()  # its connection may have the former client certificate
        return await handler(_authorized(request, self.current))

    def reject(self, login: Login) -> None:
        """Read the credential again, because the API server refused it. May be called in any thread."""
        self._loop.call_soon_threadsafe(self._on_rejection, login)

    def _on_rejection(self, login: Login) -> None:
        if self.current is login:
            self._start_reading(unless_fresh=False)

    async def _renew_after(self, rejected: Login) -> None:
        self._on_rejection(rejected)
        if self._reading and self.current is rejected:
            await asyncio.wait([self._reading])

    def _start_reading(self, *, unless_fresh: bool) -> None:
        """Read in the background, unless that is going on or was done a moment ago."""
        now = self._loop.time()
        if self._reading is None and now >= self._checked + CHECK_SECONDS:
            self._checked = now
            self._reading = self._loop.create_task(self._read(unless_fresh=unless_fresh), name="read credentials")

    async def _read(self, *, unless_fresh: bool) -> None:
        try:
            async with asyncio.timeout(_LOAD_SECONDS):
                await asyncio.wrap_future(run_in_thread(lambda: self._refresh(unless_fresh=unless_fresh)))
            self._set_problem(None)
        except TargetError as error:
            self._set_problem(str(error))
        except TimeoutError:
            self._set_problem(f"they cannot be read within {_LOAD_SECONDS:g} s")
        finally:
            self._reading = None

    def _refresh(self, *, unless_fresh: bool) -> None:
        """Replace the login (blocking). Raises TargetError."""
        former = self.current
        if unless_fresh and not former.is_stale():
            return
        login = load_login(former.target)
        if login.problem:
            raise TargetError(login.problem)
        if former.tls:
            login.load_certificate(former.tls)
            if login.authority:
                former.tls.load_verify_locations(cadata=login.authority)
        self.current = replace(
            login, server=former.server, server_name=former.server_name, proxy=former.proxy, tls=former.tls
        )

    def _set_problem(self, problem: str | None) -> None:
        if problem and problem != self._problem:
            import structlog  # noqa: PLC0415 - it slows the start of commands

            structlog.get_logger(__name__).warning("credentials not reloaded; using the former ones", error=problem)
        self._problem = problem


def _authorized(request: aiohttp.ClientRequest, login: Login) -> aiohttp.ClientRequest:
    """Set the credential's headers, and the name in the server's certificate."""
    for name in {name for name, _ in login.headers}:
        request.headers.popall(name, None)
    for name, value in login.headers:
        request.headers.add(name, value)
    request.server_hostname = login.server_name
    return request
