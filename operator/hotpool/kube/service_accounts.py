"""Requests about the ServiceAccounts of agents outside the cluster. Every failure is an ApiUnavailable.

Decides nothing.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import replace
from enum import Enum, auto
from time import monotonic
from typing import Any, Final

from kubernetes.aio.client import ApiClient

from hotpool.api import meta
from hotpool.common.kube_client import new_client
from hotpool.common.kube_credential import bearer
from hotpool.common.kube_login import Login
from hotpool.core.model import Kind
from hotpool.kube.client import ApiUnavailable, Connection, asked, asked_if_present
from hotpool.kube.reader import READ_TIMEOUT
from hotpool.kube.rest import APPLY, path, request

Json = dict[str, Any]

MANAGER: Final = "hotpool-enroll"
_RBAC: Final = "rbac.authorization.k8s.io/v1"
_GROUPS: Final = {"ServiceAccount": "v1", "Secret": "v1", "Role": _RBAC, "RoleBinding": _RBAC}
"""API group version of each kind."""
_POLL_SECONDS: Final = 0.2
_SETTLE_SECONDS: Final = 10.0
"""Longest time until the API server applies a new Role or admission policy."""
_TOKEN_SECONDS: Final = 600
"""Shortest lifetime of a token that the API server grants."""
_FORBIDDEN: Final = 403
_CONFLICT: Final = 409


class PolicyCheck(Enum):
    """Result of a write that no agent may make."""

    REFUSED = auto()
    """The admission policy is in force."""
    ACCEPTED = auto()
    """The admission policy is not in force."""
    UNKNOWN = auto()
    """RBAC refused the write before the policy."""


class ServiceAccounts:
    """Client for the accounts in one namespace."""

    def __init__(self, connection: Connection, namespace: str) -> None:
        self._namespace = namespace
        self._login = connection.login.current
        self._api = connection.api

    @property
    def server(self) -> tuple[str, str | None, str | None]:
        """Address of the API server, trusted authority (PEM; None: the machine's) and TLS name, from our kubeconfig."""
        return self._login.server, self._login.authority, self._login.server_name

    @property
    def verifies_server(self) -> bool:
        """True if our own kubeconfig verifies the API server's certificate."""
        return self._login.verifies

    async def labels_of(self, account: str) -> dict[str, str] | None:
        """Return the labels of a ServiceAccount, or None if it does not exist."""
        found = await asked_if_present(self._read("ServiceAccount", account), "get", f"serviceaccounts/{account}")
        return None if found is None else dict(found["metadata"].get("labels") or {})

    async def apply(self, body: Json) -> None:
        """Apply a ServiceAccount, Role or RoleBinding."""
        name = body["metadata"]["name"]
        url_path = self._path(body["kind"], name)
        query = {"fieldManager": MANAGER, "force": "true"}
        pending = request(
            self._api, "PATCH", url_path, query=query, body=body, content_type=APPLY, seconds=READ_TIMEOUT
        )
        await asked(pending, "apply", f"{body['kind'].lower()}s/{name}")

    async def secret(self, name: str) -> Json | None:
        """Return a Secret, or None if it does not exist."""
        found: Json | None = await asked_if_present(self._read("Secret", name), "get", f"secrets/{name}")
        return found

    async def create_secret(self, body: Json) -> None:
        """Create a Secret. An existing one is not changed."""
        name = body["metadata"]["name"]
        query = {"fieldManager": MANAGER}
        pending = request(self._api, "POST", self._path("Secret"), query=query, body=body, seconds=READ_TIMEOUT)
        try:
            await asked(pending, "create", f"secrets/{name}")
        except ApiUnavailable as error:
            if error.status != _CONFLICT:
                raise

    async def delete(self, kind: str, name: str, uid: str | None = None) -> bool:
        """Delete an object (with this uid). Return False if it does not exist."""
        body = {"preconditions": {"uid": uid}} if uid else {}
        pending = request(self._api, "DELETE", self._path(kind, name), body=body, seconds=READ_TIMEOUT)
        return await asked_if_present(pending, "delete", f"{kind.lower()}s/{name}") is not None

    async def check_policy(self, account: str, node: str) -> PolicyCheck:
        """Dry-run a forbidden write as the account, until the policy refuses it or 10 s have passed."""
        url_path = self._path("ServiceAccount", account, "token")
        body = {"spec": {"expirationSeconds": _TOKEN_SECONDS}}
        pending = request(self._api, "POST", url_path, body=body, seconds=READ_TIMEOUT)
        token = (await asked(pending, "create", f"serviceaccounts/token of {account}"))["status"]["token"]
        deadline = monotonic() + _SETTLE_SECONDS
        async with _as_account(self._login, token) as api:
            while True:
                outcome = await self._attempt_forbidden_write(api, node)
                if outcome is PolicyCheck.REFUSED or monotonic() > deadline:
                    return outcome
                await asyncio.sleep(_POLL_SECONDS)

    async def _attempt_forbidden_write(self, api: ApiClient, node: str) -> PolicyCheck:
        url_path = path(meta.API_VERSION, "namespaces", self._namespace, Kind.NODE.value, node)
        query = {"dryRun": "All", "fieldManager": MANAGER}
        metadata = {"name": node, "labels": {f"{meta.GROUP}/enroll": "trial"}}
        body = {"apiVersion": meta.API_VERSION, "kind": "NodeCapability", "metadata": metadata}
        pending = request(api, "PATCH", url_path, query=query, body=body, content_type=APPLY, seconds=READ_TIMEOUT)
        try:
            await asked(pending, "patch", f"{Kind.NODE.value}/{node}")
        except ApiUnavailable as error:
            if error.status != _FORBIDDEN:
                raise
            return PolicyCheck.REFUSED if "ValidatingAdmissionPolicy" in str(error) else PolicyCheck.UNKNOWN
        return PolicyCheck.ACCEPTED

    def _path(self, kind: str, *parts: str) -> str:
        return path(_GROUPS[kind], "namespaces", self._namespace, f"{kind.lower()}s", *parts)

    def _read(self, kind: str, name: str) -> Awaitable[Any]:
        return request(self._api, "GET", self._path(kind, name), seconds=READ_TIMEOUT)


@asynccontextmanager
async def _as_account(login: Login, token: str) -> AsyncIterator[ApiClient]:
    """Open a client of the same server with this token and none of our own credentials."""
    other = replace(login, certificate=None, headers=bearer(token))
    api = new_client(replace(other, tls=login.tls and other.new_context()))
    try:
        yield api
    finally:
        await api.close()
