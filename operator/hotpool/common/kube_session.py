"""HTTP session with the trust, proxy and credential of a login."""

from collections.abc import Sequence

import aiohttp
from aiohttp.client_middlewares import ClientHandlerType, ClientMiddlewareType

from hotpool.common.kube_login import Login


def new_session(login: Login, middlewares: Sequence[ClientMiddlewareType] = ()) -> aiohttp.ClientSession:
    """Return a session without an open connection. `middlewares` add the credential; by default that of the login.

    It does not read proxies and ~/.netrc from the environment, which would take two threads for each request.
    """
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=login.tls or True),
        proxy=login.proxy,
        middlewares=middlewares or (authorize_with(login),),
        trust_env=False,
    )


def authorized(request: aiohttp.ClientRequest, login: Login) -> aiohttp.ClientRequest:
    """Set the credential's headers, and the name in the server's certificate.

    Headers of a session would not do: aiohttp sends those to the proxy, too.
    """
    for name in {name for name, _ in login.headers}:
        request.headers.popall(name, None)
    for name, value in login.headers:
        request.headers.add(name, value)
    request.server_hostname = login.server_name
    return request


def authorize_with(login: Login) -> ClientMiddlewareType:
    """Return the middleware that adds the credential of the login."""

    async def authorize(request: aiohttp.ClientRequest, handler: ClientHandlerType) -> aiohttp.ClientResponse:
        return await handler(authorized(request, login))

    return authorize
