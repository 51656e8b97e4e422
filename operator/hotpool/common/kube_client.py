"""Client of the API server with the address, trust and credential of a login.

The only module of its room that may import kubernetes, so commands that need no API server must not import it.
"""

from collections.abc import Sequence

from aiohttp.client_middlewares import ClientMiddlewareType
from kubernetes.aio.client import ApiClient, Configuration

from hotpool.common.kube_login import Login
from hotpool.common.kube_session import authorize_with


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
    configuration.client_session_kwargs = {"trust_env": False, "middlewares": middlewares or (authorize_with(login),)}
    client = ApiClient(configuration)
    if login.tls:
        client.rest_client.ssl_context = login.tls
    return client
