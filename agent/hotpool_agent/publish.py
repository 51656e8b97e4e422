"""The door to the API server: the node's NodeCapability and Lease (behaviour B7, B8). I/O.

Called by `reporter`, `heartbeat` and `own_watch`; the only importer of kubernetes. Every failure becomes one of the
errors below; when to try again and what to make of an answer is decided by the callers.
"""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.config import list_kube_config_contexts, load_incluster_config, load_kube_config

from hotpool.api.meta import API_VERSION, LEASE_LABEL, LEASE_PREFIX, timestamp

MANAGER: Final = "hotpool-agent"
_APPLY: Final = "application/apply-patch+yaml"
_MERGE: Final = "application/merge-patch+json"
_NAMESPACE_FILE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_HOME_CONFIG: Final = Path("~/.kube/config")
_WATCH_SECONDS: Final = 300

Json = dict[str, Any]


class TargetError(Exception):
    """No usable cluster configuration; the message says what was looked for."""


class Problem(Exception):  # noqa: N818 - the base of the errors below; it is caught, not raised
    """A request that did not succeed. `pause`: seconds that the server asked to wait."""

    def __init__(self, message: str, pause: float = 0.0) -> None:
        super().__init__(message)
        self.pause = pause


class UnavailableError(Problem):
    """No answer, or one that does not say whether the request took effect."""


class DeniedError(Problem):
    """401 or 403."""


class NotServedError(Problem):
    """The CRDs or the namespace are missing."""


class BusyError(Problem):
    """429."""


class MissingError(Problem):
    """The object is not there."""


class StaleError(Problem):
    """The API server holds a newer report, or one of another session (behaviour B7)."""


class RejectedError(Problem):
    """The object breaks the schema."""


@dataclass(frozen=True, slots=True)
class Target:
    """Which cluster; None: KUBECONFIG or ~/.kube/config, else the pod's own service account."""

    kubeconfig: str | None = None
    context: str | None = None
    namespace: str | None = None


@dataclass(frozen=True, slots=True)
class _Ask:
    """One request. `kind`: the content type of `body`."""

    method: str
    path: str
    body: Json | None = None
    kind: str | None = None
    query: dict[str, str] = field(default_factory=lambda: {"fieldManager": MANAGER})


class Cluster:
    """One node's two objects. Open it with `connect`; times in seconds."""

    def __init__(self, target: Target, node: str, seconds: float) -> None:
        self.node = node
        self.namespace = ""
        self._target = target
        self._seconds = seconds
        self._api: ApiClient | None = None

    async def connect(self) -> None:
        """Read the configuration (again), with fresh credentials. Raises TargetError; then the old ones stay in use."""
        client, self.namespace = await _client(self._target)
        before, self._api = self._api, client
        if before:
            await before.close()

    async def close(self) -> None:
        """Close the connection."""
        if self._api:
            await self._api.close()
            self._api = None

    async def ensure_capability(self) -> Json:
        """The node's NodeCapability, created if need be, by an apply of metadata alone."""
        body = {"apiVersion": API_VERSION, "kind": "NodeCapability", "metadata": {"name": self.node}}
        return await self._request(_Ask("PATCH", self._capability(), body, _APPLY))

    async def read_capability(self) -> Json | None:
        """The node's NodeCapability, or None."""
        try:
            return await self._request(_Ask("GET", self._capability(), query={}))
        except MissingError:
            return None

    async def write_report(self, report: Json) -> None:
        """Replace `status.report` by merge patch; `report` carries every key (behaviour B7)."""
        patch = {"status": {"report": report}}
        await self._request(_Ask("PATCH", f"{self._capability()}/status", patch, _MERGE))

    async def ensure_lease(self) -> None:
        """Create the node's Lease if need be, by an apply of metadata alone."""
        metadata = {"name": f"{LEASE_PREFIX}{self.node}", "labels": {LEASE_LABEL: "true"}}
        body = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata}
        await self._request(_Ask("PATCH", self._lease(), body, _APPLY))

    async def renew_lease(self, holder: str, duration: int) -> None:
        """One heartbeat. Raises MissingError if there is no Lease."""
        spec = {"holderIdentity": holder, "leaseDurationSeconds": duration, "renewTime": timestamp()}
        await self._request(_Ask("PATCH", self._lease(), {"spec": spec}, _MERGE))

    async def lease_renew_time(self) -> str | None:
        """The Lease's renewTime; None without a Lease."""
        try:
            lease = await self._request(_Ask("GET", self._lease(), query={}))
        except MissingError:
            return None
        value: str | None = (lease.get("spec") or {}).get("renewTime")
        return value

    async def watch_capability(self) -> AsyncIterator[Json | None]:
        """The NodeCapability as it is now and after each change; None: it is not there. Ends when the stream ends.

        Lists and watches this one name only, so that a Role with resourceNames suffices.
        """
        query = {"fieldSelector": f"metadata.name={self.node}"}
        listing = await self._request(_Ask("GET", self._capabilities(), query=query))
        yield next(iter(listing.get("items") or ()), None)
        version = str(listing["metadata"]["resourceVersion"])
        query = query | {"watch": "true", "resourceVersion": version, "timeoutSeconds": str(_WATCH_SECONDS)}
        limits = aiohttp.ClientTimeout(total=None, sock_connect=self._seconds, sock_read=_WATCH_SECONDS + 30)
        response = await self._send(_Ask("GET", self._capabilities(), query=query), limits)
        try:
            async for line in response.content:
                event = json.loads(line)
                if event["type"] == "ERROR":
                    return
                yield None if event["type"] == "DELETED" else event["object"]
        except (aiohttp.ClientError, TimeoutError, ValueError, OSError) as error:
            raise UnavailableError(f"watch broke: {_words(error)}") from error
        finally:
            response.close()

    def _capabilities(self) -> str:
        return f"/apis/{API_VERSION}/namespaces/{self.namespace}/nodecapabilities"

    def _capability(self) -> str:
        return f"{self._capabilities()}/{self.node}"

    def _lease(self) -> str:
        return f"/apis/coordination.k8s.io/v1/namespaces/{self.namespace}/leases/{LEASE_PREFIX}{self.node}"

    async def _request(self, ask: _Ask) -> Json:
        """The JSON answer of a successful request. Raises Problem."""
        try:
            async with asyncio.timeout(self._seconds):
                response = await self._send(ask, aiohttp.ClientTimeout(total=self._seconds))
                answer = json.loads(await response.read())
        except TimeoutError as error:
            raise UnavailableError(f"no answer in {self._seconds:g} s") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise UnavailableError(f"answer broke: {_words(error)}") from error
        if not isinstance(answer, dict):
            raise UnavailableError("answer broke: it is no object")
        return answer

    async def _send(self, ask: _Ask, limits: aiohttp.ClientTimeout) -> aiohttp.ClientResponse:
        """The response of a successful request, unread. Raises Problem."""
        if self._api is None:
            raise UnavailableError("not connected")
        headers = {"Accept": "application/json"} | ({"Content-Type": ask.kind} if ask.kind else {})
        query = list(ask.query.items())
        try:
            _, url, headers, _, _ = await self._api.param_serialize(
                ask.method, ask.path, query_params=query, header_params=headers, auth_settings=["BearerToken"]
            )
            # The body goes past param_serialize, which would copy it deeply.
            answer = await self._api.call_api(ask.method, url, headers, ask.body, _request_timeout=limits)
            response: aiohttp.ClientResponse = answer.response
            if response.ok:
                return response
            text = await response.text(errors="replace")
        except (aiohttp.ClientError, OSError, RuntimeError, AssertionError) as error:
            # The last two: the session was closed for fresh credentials while this request began.
            raise UnavailableError(f"cannot reach the API server: {_words(error)}") from error
        raise problem(response.status, text, response.headers.get("Retry-After"))


def _words(error: Exception) -> str:
    return "no answer in time" if isinstance(error, TimeoutError) else str(error) or type(error).__name__


def problem(status: int, body: str, retry_after: str | None = None) -> Problem:
    """The error that an answer of the API server stands for."""
    try:
        details = json.loads(body)
        message = str(details["message"])
    except (ValueError, KeyError, TypeError):
        details, message = {}, body.strip()[:200] or f"HTTP {status}"
    pause = float(retry_after) if retry_after and retry_after.isdigit() else 0.0
    if status in {401, 403}:
        return DeniedError(f"{status}: the API server refuses this agent's credential: {message}")
    if status == 404:  # noqa: PLR2004 - HTTP's own number
        return _not_found(details, message)
    if status == 429:  # noqa: PLR2004
        return BusyError(f"429: the API server is busy: {message}", pause)
    if status == 422 and "stale report" in message:  # noqa: PLR2004
        return StaleError(message)
    if status in {400, 413, 422}:
        return RejectedError(f"{status}: {message}")
    return UnavailableError(f"{status}: {message}", pause)


def _not_found(details: Json, message: str) -> Problem:
    about = details.get("details") or {}
    if about.get("kind") == "namespaces":
        return NotServedError(f"404: {message}; create the namespace")
    if about.get("name"):
        return MissingError(f"404: {message}")
    return NotServedError("404: the API server does not know NodeCapability; apply the CRDs (crds/*.yaml)")


def _own_namespace() -> str:
    return _NAMESPACE_FILE.read_text(encoding="utf-8").strip()


async def _client(target: Target) -> tuple[ApiClient, str]:
    """A client, and the namespace to use. Raises TargetError."""
    path = target.kubeconfig or os.environ.get("KUBECONFIG")
    configuration = Configuration()
    try:
        namespace = await _configure(configuration, path, target)
        configuration.retries = None
        return ApiClient(configuration), namespace
    except Exception as error:
        # A file that is being replaced, or a mistake in it, shows as any error that its readers know.
        raise TargetError(
            f"no usable cluster configuration ({path or 'in cluster or ~/.kube/config'}): {error}"
        ) from error


async def _configure(configuration: Configuration, path: str | None, target: Target) -> str:
    """Fill the configuration; the namespace to use. Raises whatever its readers raise."""
    if "KUBERNETES_SERVICE_HOST" in os.environ and not path and not target.context:
        load_incluster_config(client_configuration=configuration)
        return target.namespace or _own_namespace()
    # $KUBECONFIG may be a list of files, so it is no Path.
    place = path or str(_HOME_CONFIG.expanduser())
    await load_kube_config(place, target.context, configuration, persist_config=False)
    contexts, active = list_kube_config_contexts(place)
    chosen = next((item for item in contexts if item["name"] == target.context), active)
    return target.namespace or str(chosen["context"].get("namespace") or "default")
