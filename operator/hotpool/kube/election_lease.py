"""The election Lease, read and written by the thread of the election. Blocking; raises as `kube.rest`."""

import asyncio
from dataclasses import replace
from typing import Any, Final

from kubernetes.aio.client.exceptions import ApiException

from hotpool.api.meta import ELECTION_LEASE
from hotpool.common.kube_client import new_client
from hotpool.kube.live_login import LiveLogin
from hotpool.kube.rest import path, request

Json = dict[str, Any]

REQUEST_SECONDS: Final = 1.5
_NOT_FOUND: Final = 404


class ElectionLease:
    """Lease of one namespace, over an event loop and a connection of its own. `login`: that of the last request."""

    def __init__(self, live: LiveLogin, namespace: str) -> None:
        self.login = live.current
        self._live = live
        self._leases = path("coordination.k8s.io/v1", "namespaces", namespace, "leases")
        self._runner = asyncio.Runner()
        self._api: Any = None

    def read(self) -> Json | None:
        """Return the Lease, or None if it does not exist."""
        try:
            return self._send("GET", f"{self._leases}/{ELECTION_LEASE}")
        except ApiException as error:
            if error.status != _NOT_FOUND:
                raise
            return None

    def write(self, lease: Json) -> Json:
        """Replace the Lease, or create it if it has no version. Return it as stored."""
        if "resourceVersion" in lease["metadata"]:
            return self._send("PUT", f"{self._leases}/{ELECTION_LEASE}", lease)
        return self._send("POST", self._leases, lease)

    def close(self) -> None:
        """Close the connection."""
        self._runner.run(self._disconnect())
        self._runner.close()

    def _send(self, method: str, url_path: str, body: Json | None = None) -> Json:
        return self._runner.run(self._request(method, url_path, body))

    async def _request(self, method: str, url_path: str, body: Json | None) -> Json:
        if self._api is None or self.login is not self._live.current:
            await self._disconnect()
            login = self.login = self._live.current
            # A TLS context of its own: that of the login is changed by another thread.
            self._api = new_client(replace(login, tls=login.tls and login.new_context()))
        return dict(await request(self._api, method, url_path, body=body, seconds=REQUEST_SECONDS))

    async def _disconnect(self) -> None:
        if self._api:
            await self._api.close()
