"""Asking an API server whether it is ready.

Its job: two questions over TLS with the administrator's certificate. Called by: cluster.
It must not: wait, or decide what an answer means.
"""

import http.client
import ssl
from http import HTTPStatus
from pathlib import Path

from localkube.ports import LOOPBACK

_TIMEOUT = 5.0


class Api:
    """The API server of one cluster, seen by its administrator."""

    def __init__(self, port: int, pki: Path) -> None:
        self._port = port
        self._tls = ssl.create_default_context(cafile=str(pki / "ca.crt"))
        self._tls.load_cert_chain(pki / "admin.crt", pki / "admin.key")

    def ready(self) -> bool:
        """Whether the API server calls itself ready."""
        return self._found("/readyz")

    def has_default_account(self) -> bool:
        """Whether the controllers work: they make the account without which no pod can be created."""
        return self._found("/api/v1/namespaces/default/serviceaccounts/default")

    def _found(self, path: str) -> bool:
        connection = http.client.HTTPSConnection(LOOPBACK, self._port, timeout=_TIMEOUT, context=self._tls)
        try:
            connection.request("GET", path)
            return connection.getresponse().status == HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
