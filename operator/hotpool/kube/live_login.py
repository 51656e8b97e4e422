"""The login of a program that runs on (requirements B9, F5), read again when it changed, expired or was refused.

Requests get the present credential, and never wait for files or exec plugins unless the API server refused theirs.
Address, TLS name and proxy stay as first read.
"""

import asyncio
from dataclasses import replace
from typing import Final

import aiohttp
from aiohttp.client_middlewares import ClientHandlerType

from hotpool.common.kube_login import Login, load_login
from hotpool.common.kube_session import authorized
from hotpool.common.kubeconfig import Target, TargetError
from hotpool.common.threads import run_in_thread

CHECK_SECONDS: Final = 10.0
"""Shortest time between two looks at the files, and between two readings after a 401."""
_LOAD_SECONDS: Final = 30.0
"""Time to read the files and run the exec plugin, whose own limit is shorter."""
_STALE_CONNECTIONS: Final = 4
"""Attempts with a new client certificate."""
_UNAUTHORIZED: Final = 401


class LiveLogin:
    """The present login of one target. `current` may be read in any thread; the rest belongs to the event loop."""

    def __init__(self, login: Login) -> None:
        self.current = login
        self._loop = asyncio.get_running_loop()
        self._checked = self._loop.time()
        self._refused = -CHECK_SECONDS
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
        self._start_reading(refused=False)
        used = self.current
        response = await handler(authorized(request, used))
        if response.status != _UNAUTHORIZED:
            return response
        while self.current is used and (reading := self._start_reading(refused=True)):
            await asyncio.wait([reading])
        return response if self.current is used else await self._repeat(request, handler)

    async def _repeat(self, request: aiohttp.ClientRequest, handler: ClientHandlerType) -> aiohttp.ClientResponse:
        """Send a request again. Idle connections have the former client certificate, and each attempt closes one."""
        login = self.current
        if not login.certificate:
            return await handler(authorized(request, login))
        request.headers["Connection"] = "close"
        for _ in range(_STALE_CONNECTIONS):
            response = await handler(authorized(request, login))
            if response.status != _UNAUTHORIZED:
                break
        return response

    def reject(self, login: Login) -> None:
        """Read the credential again, because the API server refused it. May be called in any thread."""
        self._loop.call_soon_threadsafe(self._on_rejection, login)

    def _on_rejection(self, login: Login) -> None:
        if self.current is login:
            self._start_reading(refused=True)

    def _start_reading(self, *, refused: bool) -> asyncio.Task[None] | None:
        """Start reading unless it was done a moment ago, and return the task if there is one.

        `refused`: read the credential even if its files are unchanged.
        """
        if self._reading is None:
            now = self._loop.time()
            if now < (self._refused if refused else self._checked) + CHECK_SECONDS:
                return None
            self._checked, self._refused = now, now if refused else self._refused
            self._reading = self._loop.create_task(self._read(refused=refused), name="read credentials")
        return self._reading

    async def _read(self, *, refused: bool) -> None:
        try:
            async with asyncio.timeout(_LOAD_SECONDS):
                login = await asyncio.wrap_future(run_in_thread(lambda: _read(self.current, refused=refused)))
            if login:
                self._replace(login)
            self._set_problem(None)
        except (TargetError, OSError) as error:
            hangs = isinstance(error, TimeoutError)
            self._set_problem(f"they cannot be read within {_LOAD_SECONDS:g} s" if hangs else str(error))
        finally:
            self._reading = None

    def _replace(self, login: Login) -> None:
        """Use the credential of another login. Not in a thread: OpenSSL must not change a context that is in use."""
        former = self.current
        if former.tls:
            login.load_certificate(former.tls)
            if login.authority:
                former.tls.load_verify_locations(cadata=login.authority)
        self.current = replace(login, server_name=former.server_name, proxy=former.proxy, tls=former.tls)

    def _set_problem(self, problem: str | None) -> None:
        if problem and problem != self._problem:
            import structlog  # noqa: PLC0415 - it slows the start of commands

            structlog.get_logger(__name__).warning("credentials not reloaded; using the former ones", error=problem)
        self._problem = problem


def _read(former: Login, *, refused: bool) -> Login | None:
    """Return the present login (blocking), or None if the former one is fresh and not refused. Raises TargetError."""
    if not (refused or former.is_stale()):
        return None
    login = load_login(former.target)
    if login.problem:
        raise TargetError(login.problem)
    if login.server != former.server:
        raise TargetError(f"the kubeconfig names another server, {login.server}; restart to use it")
    return login
