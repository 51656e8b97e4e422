"""Client of the API server with the address, trust and credential of a login.

The only module of its room that may import kubernetes, so commands that need no API server must not import it.
"""

from collections.abc import Sequence

import aiohttp
from aiohttp.client_middlewares import ClientHandlerType, ClientMiddlewareType
from kubernetes.aio.client import ApiClient, Configuration

from hotpool.common.kube_login import Login


def new_client(login: Login, *, connections: int = 100, middlewares: Sequence[ClientMiddlewareType] = ()) -> ApiClient:
    """Return a client without an open connection. `middlewares` add the credential; by default that of the login.

    Its session does not read proxies and ~/.netrc from the environment, which would take two threads for each request.
    """
    configuration = Configuration(host=login.server)
    configuration.verify_ssl = login.verifies
    configuration.ca_cert_data = login.authority
    configuration.tls_server_name = login.server_name
    configuration.proxy = login.proxy
    configuration.connection_pool_maxsize = connections
    configuration.client_session_kwargs = {"trust_env": False, "middlewares": middlewares or (_authorize_with(login),)}
    client = ApiClient(configuration)
    if login.tls:
        client.rest_client.ssl_context = login.tls
    return client


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


def _authorize_with(login: Login) -> ClientMiddlewareType:
    async def authorize(request: aiohttp.ClientRequest, handler: ClientHandlerType) -> aiohttp.ClientResponse:
        return await handler(authorized(request, login))

    return authorize
