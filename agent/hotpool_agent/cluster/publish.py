"""The door to the API server: the node's NodeCapability and Lease (behaviour B7, B8). I/O.

Called by `reporter`, `heartbeat`, `own_watch` and `notice`; with `session` and `credentials` the only importers of
kubernetes. Every failure becomes one of the errors of `problems`; when to try again and what to make of an answer is
decided by the callers.
"""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
from kubernetes.aio.client import ApiClient

from hotpool.api.meta import API_VERSION, LEASE_LABEL, LEASE_PREFIX, timestamp
from hotpool_agent.cluster.credentials import Target
from hotpool_agent.cluster.problems import MissingError, UnauthorizedError, UnavailableError, problem, unreachable
from hotpool_agent.cluster.session import Session

MANAGER: Final = "hotpool-agent"
_APPLY: Final = "application/apply-patch+yaml"
_MERGE: Final = "application/merge-patch+json"
_STAMPS: Final = ("session", "epoch", "sequence")
_WATCH_SECONDS: Final = 300
_SILENCE_SECONDS: Final = _WATCH_SECONDS + 30
"""A watch in which nothing at all was heard for so long is given up: the server ends it earlier."""
_PROBES: Final = {socket.TCP_KEEPIDLE: 15, socket.TCP_KEEPINTVL: 5, socket.TCP_KEEPCNT: 3}
"""A watch whose peer is gone, as after a suspend, breaks within 30 s; behind a proxy, which answers these probes
itself, within _SILENCE_SECONDS."""

Json = dict[str, Any]


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
        self._session = Session(target)
        self._seconds = seconds

    @property
    def namespace(self) -> str:
        """The namespace of the fleet."""
        return self._session.namespace

    async def connect(self) -> None:
        """Read the configuration. Raises TargetError."""
        await self._session.open()

    async def close(self) -> None:
        """Close the connection."""
        await self._session.close()

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
        """Replace `status.report` by merge patch; `report` carries every key (behaviour B7).

        An answer that does not show the report leaves open whether it is stored.
        """
        patch = {"status": {"report": report}}
        answer = await self._request(_Ask("PATCH", f"{self._capability()}/status", patch, _MERGE))
        stored = _part(_part(answer, "status"), "report")
        if any(stored.get(stamp) != report[stamp] for stamp in _STAMPS):
            raise UnavailableError("the answer does not show the report that was sent")

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
        value: str | None = _part(lease, "spec").get("renewTime")
        return value

    async def write_event(self, name: str, event: Json) -> None:
        """Create or replace an Event of core/v1."""
        path = f"/api/v1/namespaces/{self.namespace}/events/{name}"
        await self._request(_Ask("PATCH", path, event, _APPLY))

    async def watch_capability(self) -> AsyncIterator[Json | None]:
        """The NodeCapability as it is now and after each change; None: it is not there. Ends when the stream ends.

        Lists and watches this one name only, so that a Role with resourceNames suffices.
        """
        query = {"fieldSelector": f"metadata.name={self.node}"}
        listing = await self._request(_Ask("GET", self._capabilities(), query=query))
        item, version = _listed(listing)
        yield item
        query = query | {"watch": "true", "resourceVersion": version, "timeoutSeconds": str(_WATCH_SECONDS)}
        response = await self._open(_Ask("GET", self._capabilities(), query=query))
        try:
            async for line in response.content:
                kind, item = _event(line)
                if kind == "ERROR":
                    _raise_unless_expired(item)
                    return
                yield None if kind == "DELETED" else item
        except (aiohttp.ClientError, TimeoutError, ValueError, OSError) as error:
            # A session that was replaced ends its watch; that is no failure.
            if self._session.detach(response):
                raise unreachable(error, _SILENCE_SECONDS) from error
        finally:
            self._session.detach(response)

    def _capabilities(self) -> str:
        return f"/apis/{API_VERSION}/namespaces/{self.namespace}/nodecapabilities"

    def _capability(self) -> str:
        return f"{self._capabilities()}/{self.node}"

    def _lease(self) -> str:
        return f"/apis/coordination.k8s.io/v1/namespaces/{self.namespace}/leases/{LEASE_PREFIX}{self.node}"

    async def _request(self, ask: _Ask) -> Json:
        """The JSON answer of a successful request. Raises Problem."""
        try:
            async with asyncio.timeout(self._seconds), self._session.client() as client:
                response = await self._send(client, ask, aiohttp.ClientTimeout(total=self._seconds))
                text = await response.read()
        except (aiohttp.ClientError, OSError) as error:
            raise unreachable(error, self._seconds) from error
        return _object(text)

    async def _open(self, ask: _Ask) -> aiohttp.ClientResponse:
        """An answer to be read for long, attached to the session. Raises Problem."""
        limits = aiohttp.ClientTimeout(total=None, sock_connect=self._seconds, sock_read=_SILENCE_SECONDS)
        try:
            async with asyncio.timeout(self._seconds), self._session.client() as client:
                response = await self._send(client, ask, limits)
                self._session.attach(response)
        except (aiohttp.ClientError, OSError) as error:
            raise unreachable(error, self._seconds) from error
        _probe(response)
        return response

    async def _send(self, client: ApiClient, ask: _Ask, limits: aiohttp.ClientTimeout) -> aiohttp.ClientResponse:
        """The response of a successful request, unread. Raises Problem, or what the connection died of."""
        headers = {"Accept": "application/json"} | ({"Content-Type": ask.kind} if ask.kind else {})
        query = list(ask.query.items())
        try:
            _, url, headers, _, _ = await client.param_serialize(
                ask.method, ask.path, query_params=query, header_params=headers, auth_settings=["BearerToken"]
            )
            # The body goes past param_serialize, which would copy it deeply.
            answer = await client.call_api(ask.method, url, headers, ask.body, _request_timeout=limits)
        except (RuntimeError, ValueError) as error:
            # RuntimeError: the session was closed as this request began. ValueError: a header that HTTP cannot carry.
            raise unreachable(error, self._seconds) from error
        response: aiohttp.ClientResponse = answer.response
        if response.ok:
            return response
        failure = problem(response.status, await response.text(errors="replace"), response.headers)
        if isinstance(failure, UnauthorizedError):
            failure = UnauthorizedError("; ".join(filter(None, (str(failure), self._session.problem))))
            self._session.refused()
        raise failure


def _object(text: bytes) -> Json:
    try:
        answer = json.loads(text)
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise UnavailableError("the answer is no JSON object; is there something else before the API server?")
    return answer


def _part(whole: Json, key: str) -> Json:
    """The object under the key; an empty one if there is none."""
    part = whole.get(key)
    return part if isinstance(part, dict) else {}


def _listed(listing: Json) -> tuple[Json | None, str]:
    """The first item of a list, and the version to watch from. Raises UnavailableError."""
    items, version = listing.get("items"), _part(listing, "metadata").get("resourceVersion")
    if not isinstance(items, list) or not isinstance(version, str) or (items and not isinstance(items[0], dict)):
        raise UnavailableError("the answer is no list; is there something else before the API server?")
    return (items[0] if items else None), version


def _event(line: bytes) -> tuple[str, Json]:
    """Type and object of a line of a watch. Raises UnavailableError."""
    event = _object(line)
    kind, item = event.get("type"), event.get("object")
    if not isinstance(kind, str) or not isinstance(item, dict):
        raise UnavailableError("the watch sent something that is no event")
    return kind, item


def _raise_unless_expired(status: Json) -> None:
    """A version that is too old (410) is an ordinary end; raises Problem for all else that a watch ends with."""
    code = int(status.get("code") or 500)
    if code != 410:  # noqa: PLR2004 - HTTP's own number
        raise problem(code, json.dumps(status), {})


def _probe(response: aiohttp.ClientResponse) -> None:
    """Have the kernel ask the peer of a silent connection whether it is still there."""
    transport = response.connection.transport if response.connection else None
    link = transport.get_extra_info("socket") if transport else None
    if link:
        link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in _PROBES.items():
            link.setsockopt(socket.IPPROTO_TCP, option, value)
