"""The accounts of agents outside the cluster: the requests that make, look at and end them.

Decides nothing; every failure is `Unavailable`.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from enum import Enum, auto
from pathlib import Path
from time import monotonic
from typing import Any, Final

from kubernetes.aio import client
from kubernetes.aio.client.exceptions import ApiException

from hotpool.api import meta
from hotpool.core.model import Kind
from hotpool.kube.client import (
    KUBECONFIG_ERRORS,
    READ_TIMEOUT,
    ApiUnavailable,
    ClusterTarget,
    connect,
    kubeconfig_error,
)
from hotpool.kube.rest import APPLY, CONNECTION_ERRORS, error_text, path, request

Json = dict[str, Any]

MANAGER: Final = "hotpool-enroll"
_RBAC: Final = "rbac.authorization.k8s.io/v1"
_GROUPS: Final = {"ServiceAccount": "v1", "Secret": "v1", "Role": _RBAC, "RoleBinding": _RBAC}
"""API group version of each kind."""
_POLL_SECONDS: Final = 0.2
_SETTLE_SECONDS: Final = 10.0
"""How long the API server may take to heed a new Role, or a policy that was just installed."""
_TRIAL_SECONDS: Final = 600
"""The shortest life of a token that the API server grants."""
_FORBIDDEN: Final = 403
_MISSING: Final = 404
_CONFLICT: Final = 409


class PolicyCheck(Enum):
    """What became of a write that no agent may make."""

    REFUSED = auto()
    """The policy is in force."""
    ACCEPTED = auto()
    """It is not."""
    UNKNOWN = auto()
    """RBAC refused it before."""


class ServiceAccounts:
    """Requests about accounts in one namespace."""

    def __init__(self, api: client.ApiClient, namespace: str) -> None:
        self._namespace = namespace
        self._configuration = api.configuration
        self._api = api

    @property
    def server(self) -> tuple[str, str | None, str | None]:
        """Address of the API server, authority to trust (PEM; None: the machine's) and TLS name, as we know it."""
        known = self._configuration
        trusted = Path(known.ssl_ca_cert).read_text(encoding="utf-8") if known.ssl_ca_cert else None
        return str(known.host), trusted, known.tls_server_name

    @property
    def verifies_server(self) -> bool:
        """Whether our own kubeconfig asks who the API server is."""
        return bool(self._configuration.verify_ssl)

    async def labels_of(self, account: str) -> dict[str, str] | None:
        """The labels of a ServiceAccount, None where there is none."""
        found = await _found("get", f"serviceaccounts/{account}", self._read("ServiceAccount", account))
        return None if found is None else dict(found["metadata"].get("labels") or {})

    async def apply(self, body: Json) -> None:
        """Make a ServiceAccount, Role or RoleBinding so."""
        name = body["metadata"]["name"]
        where = self._path(body["kind"], name)
        query = {"fieldManager": MANAGER, "force": "true"}
        asked = request(self._api, "PATCH", where, query=query, body=body, content_type=APPLY, seconds=READ_TIMEOUT)
        await _asked("apply", f"{body['kind'].lower()}s/{name}", asked)

    async def secret(self, name: str) -> Json | None:
        """`uid`, `type`, `labels`, `annotations` and `data` of a Secret, None where there is none."""
        found = await _found("get", f"secrets/{name}", self._read("Secret", name))
        if found is None:
            return None
        of = found["metadata"]
        return {
            "uid": of["uid"],
            "type": found.get("type"),
            "labels": of.get("labels") or {},
            "annotations": of.get("annotations") or {},
            "data": found.get("data") or {},
        }

    async def create_secret(self, body: Json) -> None:
        """Create a Secret; one that is there already stays as it is."""
        name = body["metadata"]["name"]
        query = {"fieldManager": MANAGER}
        asked = request(self._api, "POST", self._path("Secret"), query=query, body=body, seconds=READ_TIMEOUT)
        try:
            await _asked("create", f"secrets/{name}", asked)
        except ApiUnavailable as error:
            if error.status != _CONFLICT:
                raise

    async def delete(self, kind: str, name: str, uid: str | None = None) -> bool:
        """Delete an object (this very one); False where it is not there."""
        body = {"preconditions": {"uid": uid}} if uid else {}
        asked = request(self._api, "DELETE", self._path(kind, name), body=body, seconds=READ_TIMEOUT)
        return await _found("delete", f"{kind.lower()}s/{name}", asked) is not None

    async def check_policy(self, account: str, node: str) -> PolicyCheck:
        """Try, as the account and without effect, what no agent may do; ends when the policy refuses, or after 10 s."""
        where = self._path("ServiceAccount", account, "token")
        body = {"spec": {"expirationSeconds": _TRIAL_SECONDS}}
        asked = request(self._api, "POST", where, body=body, seconds=READ_TIMEOUT)
        token = (await _asked("create", f"serviceaccounts/token of {account}", asked))["status"]["token"]
        deadline = monotonic() + _SETTLE_SECONDS
        async with _as_account(self._configuration, token) as api:
            while True:
                outcome = await self._try(api, node)
                if outcome is PolicyCheck.REFUSED or monotonic() > deadline:
                    return outcome
                await asyncio.sleep(_POLL_SECONDS)

    async def _try(self, api: client.ApiClient, node: str) -> PolicyCheck:
        where = path(meta.API_VERSION, "namespaces", self._namespace, Kind.NODE.value, node)
        query = {"dryRun": "All", "fieldManager": MANAGER}
        metadata = {"name": node, "labels": {f"{meta.GROUP}/enroll": "trial"}}
        body = {"apiVersion": meta.API_VERSION, "kind": "NodeCapability", "metadata": metadata}
        asked = request(api, "PATCH", where, query=query, body=body, content_type=APPLY, seconds=READ_TIMEOUT)
        try:
            await _asked("patch", f"{Kind.NODE.value}/{node}", asked)
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
async def service_accounts(access: ClusterTarget) -> AsyncIterator[ServiceAccounts]:
    """Accounts with a connection of its own, for one command; raises Unavailable where none can be made."""
    try:
        api = await connect(access)
    except KUBECONFIG_ERRORS as error:
        raise kubeconfig_error(access, error) from None
    try:
        yield ServiceAccounts(api, access.namespace)
    finally:
        await api.close()


@asynccontextmanager
async def _as_account(known: client.Configuration, token: str) -> AsyncIterator[client.ApiClient]:
    """A client of the same server with this token and nothing of our own credentials."""
    made = client.Configuration()
    for name in ("host", "ssl_ca_cert", "verify_ssl", "tls_server_name", "proxy"):
        setattr(made, name, getattr(known, name))
    made.api_key["BearerToken"] = f"Bearer {token}"
    api = client.ApiClient(made)
    try:
        yield api
    finally:
        await api.close()


async def _asked(verb: str, what: str, request: Awaitable[Any]) -> Any:
    """The answer; raises Unavailable."""
    try:
        return await request
    except (ApiException, *CONNECTION_ERRORS) as error:
        status = error.status if isinstance(error, ApiException) else None
        raise ApiUnavailable(f"cannot {verb} {what}: {error_text(error)}", status, f"{verb} {what}") from None


async def _found(verb: str, what: str, request: Awaitable[Any]) -> Any:
    """The answer, None where the API server says 404; raises Unavailable."""
    try:
        return await _asked(verb, what, request)
    except ApiUnavailable as error:
        if error.status != _MISSING:
            raise
        return None
