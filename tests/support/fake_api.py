"""An API server for one namespace of NodeCapabilities and Leases, over real HTTP, with faults on demand.

It implements the requests of the agent: apply, merge patch of status with the stale-report rule, Lease patches, watches
by name, and authentication (token, or common name of the client certificate). `faults` apply to the next requests that
match.
"""

import asyncio
import copy
import json
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from aiohttp import web
from tests.support.fake_pods import FakePods

from localfleet.ports import free_port

Json = dict[str, Any]
Kind = Literal["status", "lost", "late", "held", "hang"]


@dataclass
class Fault:
    """A fault of the next `times` requests for which `matches` returns True.

    `status`: answer with `code`, `body` and `headers`; `lost`: apply the request, then cut the connection; `late`:
    apply it, and answer when `release` is set; `held`: apply it when `release` is set, even if the sender is gone;
    `hang`: answer 503 when `release` is set.
    """

    matches: Callable[[web.Request], bool]
    kind: Kind = "status"
    code: int = 500
    body: str = "fault"
    headers: Mapping[str, str] = field(default_factory=dict)
    body_matches: Callable[[bytes], bool] = lambda _: True
    times: int = 1
    release: asyncio.Event = field(default_factory=asyncio.Event)
    arrived: bool = False
    """True when a held request was applied or refused."""

    def applies(self, request: web.Request, body: bytes) -> bool:
        """Return True if the request has this fault."""
        return self.matches(request) and self.body_matches(body)


@dataclass
class Write:
    """One accepted write: monotonic seconds and content."""

    at: float
    report: Json


class FakeApi:
    """The server's state. Objects are keyed (resource, name)."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], Json] = {}
        self.writes: list[Write] = []
        self.beats: list[Write] = []
        self.requests: list[tuple[str, str]] = []
        self.faults: list[Fault] = []
        self.allowed: set[str] | None = None
        """Tokens and common names that are authenticated; None: all."""
        self.connections: dict[asyncio.Transport, set[str]] = {}
        """Every connection, closed ones too, with the identities that sent requests on it."""
        self.in_flight = 0
        self.most_in_flight = 0
        self.url = ""
        self.pods = FakePods(self._notify)
        self._version = 0
        self._events: list[Json] = []
        """Every event of a NodeCapability: a watch begins with those after its version."""
        self._watchers: list[asyncio.Queue[Json | None]] = []
        self._changed = asyncio.Event()

    def report(self, node: str) -> Json | None:
        """Return the stored report of a node, if any."""
        found: Json = self.objects.get(("nodecapabilities", node), {})
        report: Json | None = (found.get("status") or {}).get("report")
        return report

    def lease(self, node: str) -> Json | None:
        """Return the spec of the node's Lease, if any."""
        found = self.objects.get(("leases", f"hotpool-node-{node}"))
        return None if found is None else found.get("spec") or {}

    def put(self, resource: str, name: str, value: Json) -> None:
        """Write an object as another client; watches deliver it."""
        kind = "MODIFIED" if (resource, name) in self.objects else "ADDED"
        self._store(resource, name, copy.deepcopy(value), kind)

    def delete(self, resource: str, name: str) -> None:
        """Delete an object as another client."""
        self._store(resource, name, self.objects[resource, name], "DELETED")

    def end_watches(self) -> None:
        """Close all watch streams."""
        for queue in self._watchers:
            queue.put_nowait(None)

    def connected(self) -> set[str]:
        """Return the identities with an open connection."""
        open_ = (names for transport, names in self.connections.items() if not transport.is_closing())
        return set[str]().union(*open_)

    @property
    def watches(self) -> int:
        """Return the number of open watches."""
        return len(self._watchers)

    async def until(self, condition: Callable[[], object], seconds: float = 10.0) -> None:
        """Wait for a condition, checked after each request; raise TimeoutError after `seconds`."""
        async with asyncio.timeout(seconds):
            while not condition():
                await self._changed.wait()

    def kubeconfig(self, folder: Path, user: Json | None = None, cluster: Json | None = None) -> Path:
        """Write a kubeconfig for this server, with this user and further fields of the cluster; return its path."""
        path = folder / "kubeconfig.json"
        named = {"name": "fake"}
        path.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "fake",
                    "clusters": [named | {"cluster": {"server": self.url} | (cluster or {})}],
                    "users": [named | {"user": user or {"token": "t"}}],
                    "contexts": [named | {"context": {"cluster": "fake", "user": "fake", "namespace": "fleet"}}],
                }
            ),
            encoding="utf-8",
        )
        return path

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Every request comes here."""
        self.requests.append((request.method, request.path_qs))
        who = _identity(request)
        if request.transport:
            self.connections.setdefault(request.transport, set()).add(who)
        if self.allowed is not None and who not in self.allowed:
            self._notify()
            return _failure(401, "Unauthorized", "Unauthorized", {})
        writing = request.method == "PATCH" and request.path.endswith("/status")
        self.in_flight += writing
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            return await self._with_faults(request)
        finally:
            self.in_flight -= writing
            self._notify()

    async def _with_faults(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        fault = next((item for item in self.faults if item.times > 0 and item.applies(request, body)), None)
        if fault is None:
            return await self._serve(request)
        fault.times -= 1
        if fault.kind == "status":
            return web.Response(status=fault.code, text=fault.body, headers=fault.headers)
        if fault.kind == "hang":
            await fault.release.wait()
            return web.Response(status=503)
        if fault.kind == "held":
            return await asyncio.shield(self._held(request, fault))
        response = await self._serve(request)
        if fault.kind == "late":
            self._notify()
            await fault.release.wait()
            return response
        if request.transport:
            request.transport.close()
        return web.Response(status=500)

    async def _held(self, request: web.Request, fault: Fault) -> web.StreamResponse:
        await request.read()
        await fault.release.wait()
        response = await self._serve(request)
        fault.arrived = True
        return response

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        namespace, *parts = request.path.split("/namespaces/", 1)[1].split("/")
        resource, name = parts[0], parts[1] if len(parts) > 1 else ""
        if resource == "pods":
            return await self.pods.serve(namespace, request)
        if request.query.get("watch"):
            return await self._watch(request)
        if not name:
            wanted = request.query["fieldSelector"].removeprefix("metadata.name=")
            found = self.objects.get((resource, wanted))
            return web.json_response(
                {"metadata": {"resourceVersion": str(self._version)}, "items": [found] if found else []}
            )
        if request.method == "PATCH" and request.content_type.startswith("application/apply-patch"):
            self._apply(resource, name, await request.json())
        if (resource, name) not in self.objects:
            return _failure(404, "NotFound", f'{resource} "{name}" not found', {"name": name, "kind": resource})
        if request.method == "PATCH" and request.content_type == "application/merge-patch+json":
            return self._patch(resource, name, await request.json())
        return web.json_response(self.objects[resource, name])

    def _apply(self, resource: str, name: str, body: Json) -> None:
        old = self.objects.get((resource, name))
        new = _merged(copy.deepcopy(old or {}), body)
        if new != old:
            self._store(resource, name, new, "MODIFIED" if old else "ADDED")

    def _patch(self, resource: str, name: str, patch: Json) -> web.Response:
        old = self.objects[resource, name]
        new = _merged(copy.deepcopy(old), patch)
        if resource == "nodecapabilities":
            before, after = (old.get("status") or {}).get("report"), (new.get("status") or {}).get("report")
            if before and not _newer(before, after):
                return _failure(
                    422, "Invalid", "status: Invalid value: stale report: a later one is stored", {"name": name}
                )
            self.writes.append(Write(time.monotonic(), after or {}))
        else:
            self.beats.append(Write(time.monotonic(), new["spec"]))
        self._store(resource, name, new, "MODIFIED")
        return web.json_response(new)

    def _store(self, resource: str, name: str, value: Json, event: str) -> None:
        self._version += 1
        value.setdefault("metadata", {})["resourceVersion"] = str(self._version)
        if event == "DELETED":
            del self.objects[resource, name]
        else:
            self.objects[resource, name] = value
        if resource == "nodecapabilities":
            self._events.append({"type": event, "object": copy.deepcopy(value)})
            for queue in self._watchers:
                queue.put_nowait(self._events[-1])
        self._notify()

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        name = request.query["fieldSelector"].removeprefix("metadata.name=")
        since = int(request.query["resourceVersion"])
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        queue: asyncio.Queue[Json | None] = asyncio.Queue()
        for known in self._events:
            queue.put_nowait(known)
        self._watchers.append(queue)
        try:
            while event := await queue.get():
                metadata = event["object"]["metadata"]
                if metadata["name"] == name and int(metadata["resourceVersion"]) > since:
                    await response.write(json.dumps(event).encode() + b"\n")
        except ConnectionError:
            pass
        finally:
            self._watchers.remove(queue)
        return response

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def is_report(request: web.Request) -> bool:
    """Return True for the write of a report."""
    return request.path.endswith("/status")


def rejection(code: int = 422, body: str = "too odd") -> Fault:
    """Return a fault that rejects all whole reports, and lets minimal ones pass."""
    return Fault(is_report, code=code, body=body, body_matches=lambda text: b"Report" not in text, times=10**6)


def is_beat(request: web.Request) -> bool:
    """Return True for the renewal of a Lease."""
    return request.method == "PATCH" and "/leases/" in request.path and "merge" in request.content_type


def is_claim(request: web.Request) -> bool:
    """Return True for an apply of the object's metadata, which creates or reads it."""
    return request.method == "PATCH" and request.path.endswith("/nodecapabilities/n1")


def is_watch(request: web.Request) -> bool:
    """Return True for the start of a watch."""
    return "watch" in request.query


@asynccontextmanager
async def fake_api(port: int | None = None, tls: ssl.SSLContext | None = None) -> AsyncIterator[FakeApi]:
    """Run a server on the port, or on a free one; with `tls` over HTTPS."""
    api = FakeApi()
    app = web.Application(client_max_size=2**22)
    app.router.add_route("*", "/{tail:.*}", api.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port or free_port(), ssl_context=tls)
    await site.start()
    api.url = f"{'https' if tls else 'http'}://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield api
    finally:
        for fault in api.faults:
            fault.release.set()
        api.end_watches()
        api.pods.end_watches()
        await runner.cleanup()


def _identity(request: web.Request) -> str:
    """Return the token, or the common name of the client certificate, or `anonymous`."""
    certificate = request.transport.get_extra_info("peercert") if request.transport else None
    names = dict(pair for part in (certificate or {}).get("subject", ()) for pair in part)
    return request.headers.get("Authorization", "").partition(" ")[2] or names.get("commonName", "anonymous")


def _newer(before: Json, after: Json | None) -> bool:
    if after is None:
        return False
    if after["epoch"] != before["epoch"]:
        return bool(after["epoch"] > before["epoch"])
    return bool(after["session"] == before["session"] and after["sequence"] >= before["sequence"])


def _merged(target: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    result = target if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _merged(result.get(key), value)
    return result


def _failure(code: int, reason: str, message: str, details: Json) -> web.Response:
    return web.json_response(
        {"kind": "Status", "code": code, "reason": reason, "message": message, "details": details}, status=code
    )
