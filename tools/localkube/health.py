"""Ask the programs of a cluster whether they are ready.

Each function asks one question, to the API server with the administrator's certificate. Must not wait, or decide the
meaning of an answer.
"""

import http.client
import json
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
        """Return True if the API server reports that it is ready."""
        return self._found("/readyz")

    def has_default_account(self) -> bool:
        """Return True if the controllers work: they create the account without which no pod can be created."""
        return self._found("/api/v1/namespaces/default/serviceaccounts/default")

    def node_ready(self, name: str) -> bool:
        """Return True if the kubelet of a node reports that pods can run there."""
        answer = self._got(f"/api/v1/nodes/{name}")
        conditions = json.loads(answer)["status"].get("conditions", []) if answer else []
        return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)

    def _found(self, path: str) -> bool:
        return self._got(path) is not None

    def _got(self, path: str) -> bytes | None:
        return _get(http.client.HTTPSConnection(LOOPBACK, self._port, timeout=_TIMEOUT, context=self._tls), path)


def answers(host: str, port: int, path: str) -> bool:
    """Return True if a program that speaks plain HTTP reports that it is ready."""
    return _get(http.client.HTTPConnection(host, port, timeout=_TIMEOUT), path) is not None


def _get(connection: http.client.HTTPConnection, path: str) -> bytes | None:
    """The body of a success; None for anything else."""
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.read() if response.status == HTTPStatus.OK else None
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
