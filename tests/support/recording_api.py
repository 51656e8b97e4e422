"""An API server over TLS that records how each client reached it: TLS name, identity, namespace and way.

It serves discovery, empty lists and silent watches, accepts Leases alone, and has one port for each client.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from aiohttp import web
from tests.support.certificates import Authority
from tests.support.proxy import Proxy, proxy_to

from hotpool.api.meta import SCHEMA_REVISION, SCHEMA_REVISION_ANNOTATION

NAMES: Final = ("api.test", "other.test", "api.zone.test")
"""DNS names in the server's certificate. Only a proxy finds them."""
KINDS: Final = {
    "nodecapabilities": "NodeCapability",
    "nodepools": "NodePool",
    "nodepoolslices": "NodePoolSlice",
    "nodepoolgenerators": "NodePoolGenerator",
    "leases": "Lease",
}
_SERVED: Final = {
    "v1": {"namespaces": "Namespace"},
    "coordination.k8s.io/v1": {"leases": "Lease"},
    "hotpool.dev/v1alpha1": {plural: kind for plural, kind in KINDS.items() if plural != "leases"},
}


@dataclass(frozen=True, slots=True)
class Access:
    """Path of a request to the server. `name`: TLS server name, empty without one.

    `way`: direct, or proxy and the credential for it.
    """

    name: str
    identity: tuple[str, ...]
    namespace: str
    way: str


class RecordingApi:
    """The server. `accesses`: how requests to each port reached it."""

    def __init__(self, authority: Authority, proxy: Proxy) -> None:
        self.authority = authority
        self.proxy = proxy
        self.accesses: dict[int, set[Access]] = {}
        self.watched: set[int] = set()
        """Ports with an open watch of a custom resource by kopf."""
        self._context = authority.context(authority.issue("server", names=NAMES))
        self._context.sni_callback = _remember_name
        app = web.Application()
        app.router.add_route("*", "/{tail:.*}", self._handle)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)

    async def start(self) -> None:
        """Prepare the server."""
        await self._runner.setup()

    async def close(self) -> None:
        """End every connection."""
        await self._runner.cleanup()

    async def new_port(self) -> int:
        """Listen on another port, and return it."""
        await web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._context).start()
        port: int = self._runner.addresses[-1][1]
        self.accesses[port] = set()
        return port

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        path = request.path.removeprefix("/prefix")
        namespace, _, rest = path.partition("/namespaces/")[2].partition("/")
        if not rest:
            return web.json_response(discovery(path))
        transport = request.transport
        assert transport
        port = transport.get_extra_info("sockname")[1]
        credential = self.proxy.sources.get(transport.get_extra_info("peername")[1])
        way = "direct" if credential is None else f"proxy {credential}".strip()
        name = getattr(transport.get_extra_info("ssl_object"), "asked_name", "")
        self.accesses[port].add(Access(name, _identity(request), namespace, way))
        plural = rest.partition("/")[0]
        if request.method != "GET":
            return await _written(request) if plural == "leases" else _failure(403)
        if "watch" in request.query:
            return await self._watch(request, port)
        if "/" in rest or plural not in KINDS:
            return _failure(404)
        version = path.split("/")[2:4]
        kind = {"kind": f"{KINDS[plural]}List", "apiVersion": "/".join(version)}
        return web.json_response(kind | {"metadata": {"resourceVersion": "1"}, "items": []})

    async def _watch(self, request: web.Request, port: int) -> web.StreamResponse:
        response = web.StreamResponse()
        with suppress(ConnectionError):
            await response.prepare(request)
            if request.headers["User-Agent"].startswith("kopf"):
                self.watched.add(port)
            await asyncio.sleep(600)
        return response


def _remember_name(ssl_object: Any, name: str | None, _context: ssl.SSLContext) -> None:
    ssl_object.asked_name = name or ""


def _identity(request: web.Request) -> tuple[str, ...]:
    """Return the credential, the common name of the certificate, and the user to act as."""
    certificate = request.transport.get_extra_info("peercert") if request.transport else None
    names = dict(pair for part in (certificate or {}).get("subject", ()) for pair in part)
    acting = sorted(
        f"{name.lower()}: {value}" for name, value in request.headers.items() if name.startswith("Impersonate-")
    )
    return (request.headers.get("Authorization", ""), names.get("commonName", ""), *acting)


async def _written(request: web.Request) -> web.Response:
    body = await request.json()
    return web.json_response(body | {"metadata": body["metadata"] | {"uid": "u", "resourceVersion": "2"}})


def _failure(code: int) -> web.Response:
    return web.json_response({"kind": "Status", "status": "Failure", "code": code, "message": "no"}, status=code)


def discovery(path: str) -> dict[str, Any]:
    """Return the discovery document of a path, the uid of a namespace, or a CRD of today."""
    parts = path.strip("/").split("/")
    if "customresourcedefinitions" in parts:
        annotations = {SCHEMA_REVISION_ANNOTATION: str(SCHEMA_REVISION)}
        return {"metadata": {"name": parts[-1], "annotations": annotations}}
    if parts == ["api"]:
        return {"kind": "APIVersions", "versions": ["v1"]}
    if parts == ["apis"]:
        found = [_group(*name.split("/")) for name in _SERVED if "/" in name]
        return {"kind": "APIGroupList", "apiVersion": "v1", "groups": found}
    verbs = ["get", "list", "watch", "patch", "update"]
    resources = [
        {"name": plural, "singularName": "", "namespaced": plural != "namespaces", "kind": kind, "verbs": verbs}
        for plural, kind in _SERVED.get("/".join(parts[1:]), {}).items()
    ]
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "/".join(parts[1:]), "resources": resources}


def _group(name: str, version: str) -> dict[str, Any]:
    served = {"groupVersion": f"{name}/{version}", "version": version}
    return {"name": name, "versions": [served], "preferredVersion": served}


@asynccontextmanager
async def recording_api(folder: Path) -> AsyncIterator[RecordingApi]:
    """Run a server and a proxy to all its ports."""
    async with proxy_to(None) as proxy:
        api = RecordingApi(Authority(folder / "pki"), proxy)
        await api.start()
        try:
            yield api
        finally:
            await api.close()
