"""Client without an event loop, with the address, trust and credential of a login. For the thread of the election."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

import urllib3
from kubernetes import client

from hotpool.common.kube_credential import Headers
from hotpool.common.kube_login import Login


def blocking_client(login: Login) -> Any:
    """Return a client without an open connection. It does not retry, and reads no proxy from the environment."""
    # A context of its own: urllib3 changes the one that it gets.
    tls: dict[str, Any] = (
        {"ssl_context": login.new_context(), "server_hostname": login.server_name} if login.tls else {}
    )
    pool = (
        urllib3.ProxyManager(login.proxy, proxy_headers=_proxy_headers(login.proxy), retries=False, **tls)
        if login.proxy
        else urllib3.PoolManager(retries=False, **tls)
    )
    if not login.verifies:
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)  # the kubeconfig says so
    api: Any = client.ApiClient(client.Configuration(host=login.server))
    api.rest_client.pool_manager = _AuthorizedPool(pool, login.headers)
    return api


class _AuthorizedPool:
    """Pool that adds the login's headers to each request; one of them may have several values."""

    def __init__(self, pool: urllib3.PoolManager, headers: Headers) -> None:
        self._pool = pool
        self._headers = headers
        self.clear = pool.clear

    def request(self, method: str, url: str, *, headers: Mapping[str, str], **options: Any) -> Any:
        """Send a request."""
        sent = urllib3.HTTPHeaderDict(headers)
        for name, value in self._headers:
            sent.add(name, value)
        return self._pool.request(method, url, headers=sent, **options)


def _proxy_headers(proxy: str) -> dict[str, str]:
    """Return the header with the user name and password in the proxy's address."""
    parts = urlsplit(proxy)
    if not parts.username:
        return {}
    credential = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return dict(urllib3.make_headers(proxy_basic_auth=credential))
