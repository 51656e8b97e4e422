"""Connections to Kubernetes: the cluster to use, its credentials, and the errors of both."""

from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
from kubernetes.aio.client import ApiClient
from kubernetes.aio.client.exceptions import ApiException

from hotpool.common.kube_client import new_client
from hotpool.common.kube_session import new_session
from hotpool.common.kubeconfig import Target, TargetError
from hotpool.kube.live_login import LiveLogin
from hotpool.kube.rest import CONNECTION_ERRORS, error_text
from hotpool.kube.watch_keeper import WatchKeeper

_CONNECTIONS: Final = 32
_NOT_FOUND: Final = 404


class ApiUnavailable(Exception):  # noqa: N818 - a state of the cluster, not an error of the program.
    """Failure of a read: the API server is unreachable or refused it. The text says what and why.

    `status`: the HTTP status, None without a response. `request`: verb and resource, empty if nothing was sent.
    """

    def __init__(self, text: str, status: int | None = None, request: str = "") -> None:
        super().__init__(text)
        self.status = status
        self.request = request


async def asked(pending: Awaitable[Any], verb: str, resource: str, group: str | None = None) -> Any:
    """Return the response to a request about a resource. Raises ApiUnavailable."""
    try:
        return await pending
    except (ApiException, *CONNECTION_ERRORS) as error:
        status = error.status if isinstance(error, ApiException) else None
        sent = f"{verb} {resource}" + (f" ({group})" if group is not None else "")
        raise ApiUnavailable(f"cannot {verb} {resource}: {error_text(error)}", status, sent) from None


async def asked_if_present(pending: Awaitable[Any], verb: str, resource: str, group: str | None = None) -> Any:
    """Return the response as `asked`, or None if the API server returns 404."""
    try:
        return await asked(pending, verb, resource, group)
    except ApiUnavailable as error:
        if error.status != _NOT_FOUND:
            raise
        return None


@dataclass(frozen=True, slots=True)
class Connection:
    """A client of one API server, the login that its requests use, and the keeper of its watches."""

    api: ApiClient
    login: LiveLogin
    watches: WatchKeeper

    def new_session(self) -> aiohttp.ClientSession:
        """Return a session of its own to the same server, with the same credentials. The caller closes it."""
        return new_session(self.login.current, (self.watches.follow, self.login.authorize))


async def connect(target: Target) -> Connection:
    """Return a connection whose `api` the caller closes. Raises ApiUnavailable without kubeconfig or credential."""
    try:
        login = await LiveLogin.open(target)
    except TargetError as error:
        raise ApiUnavailable(str(error)) from None
    watches = WatchKeeper()
    api = new_client(login.current, connections=_CONNECTIONS, middlewares=(watches.follow, login.authorize))
    return Connection(api, login, watches)


@asynccontextmanager
async def connected(target: Target) -> AsyncIterator[Connection]:
    """Open a connection, and close it at the end. Raises as `connect`."""
    connection = await connect(target)
    try:
        yield connection
    finally:
        await connection.api.close()
