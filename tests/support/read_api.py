"""A read-only API server over real HTTP: lists in pages, single objects, and dry runs, with refusals on demand.

For the commands of `hotpool` that only read.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web

from hotpool.api.meta import API_VERSION
from localfleet.kind import REPOSITORY

Json = dict[str, Any]

PLURALS = {
    "NodeCapability": "nodecapabilities",
    "Node": "nodes",
    "NodePool": "nodepools",
    "NodePoolSlice": "nodepoolslices",
    "NodePoolGenerator": "nodepoolgenerators",
    "Lease": "leases",
    "Event": "events",
    "CustomResourceDefinition": "customresourcedefinitions",
}
_DEPTH_OF_VERSION = 3
"""Slashes in the path of an apiVersion."""
_PAGE = 2
"""Maximum of objects in a page, whatever `limit` is, so that every list has pages."""


class ReadApi:
    """The server's state; tests fill `objects` by plural and name."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Json]] = {plural: {} for plural in PLURALS.values()}
        self.refused: dict[str, int] = {"customresourcedefinitions": 403}
        """Plural → the HTTP status of every request for it. Few may read the definitions."""
        self.requests: set[tuple[str, str, str]] = set()
        """(verb, group, plural) of all requests, as a Role has to allow them."""
        self.elsewhere: list[str] | None = None
        """Namespaces of the fleets of the cluster, None: the account may not list Leases of all namespaces."""
        self.namespaces: set[str] = set()
        """The namespaces of all requests."""
        self.refusals: dict[str, Json] = {}
        """Name of an object → the Status by which a dry run of its write is refused."""
        self.may_write = True
        """False: all dry runs are forbidden."""
        self.url = ""

    def put(self, *objects: Json) -> None:
        """Store objects."""
        for item in objects:
            self.objects[PLURALS[item["kind"]]][item["metadata"]["name"]] = item

    def kubeconfig(self, folder: Path) -> Path:
        """Write a kubeconfig for this server and namespace `fleet`; return its path."""
        named = {"name": "fake"}
        path = folder / "read.kubeconfig"
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "fake",
            "clusters": [named | {"cluster": {"server": self.url}}],
            "users": [named | {"user": {"token": "t"}}],
            "contexts": [named | {"context": {"cluster": "fake", "user": "fake", "namespace": "fleet"}}],
        }
        path.write_text(json.dumps(content), encoding="utf-8")
        return path

    async def handle(self, request: web.Request) -> web.Response:
        """Answer a request: /apis/GROUP/VERSION/namespaces/NAMESPACE/PLURAL[/NAME], /api/v1/nodes[/NAME] or a CRD.

        Also the list of the Leases of all namespaces.
        """
        if request.path == "/apis/coordination.k8s.io/v1/leases":
            return self._fleets()
        if request.path.endswith("/selfsubjectaccessreviews"):
            return web.json_response({"status": {"allowed": self.may_write}})
        if request.path in {"/api/v1", f"/apis/{API_VERSION}"}:
            kinds = PLURALS if request.path != "/api/v1" else ["ConfigMap"]
            return web.json_response({"resources": [{"kind": kind} for kind in kinds]})
        if request.path.startswith("/apis/") and request.path.count("/") == _DEPTH_OF_VERSION:
            return _failure(404, "the server could not find the requested resource")
        if "dryRun" in request.query:
            return await self._dry_run(request)
        if request.path.startswith("/api/v1/nodes"):
            group, plural, rest = "", "nodes", request.path.split("/")[4:]
        elif "customresourcedefinitions" in request.path:
            _, _, group, _, plural, *rest = request.path.split("/")
        else:
            _, _, group, _, _, namespace, plural, *rest = request.path.split("/")
            self.namespaces.add(namespace)
        self.requests.add((("get" if rest else "list") if request.method == "GET" else request.method, group, plural))
        if plural in self.refused:
            return _failure(self.refused[plural], "refused by the test")
        if rest:
            found = self.objects[plural].get(rest[0])
            return web.json_response(found) if found else _failure(404, f"{rest[0]} not found")
        chosen = [item for item in self.objects[plural].values() if _selected(item, request)]
        start = int(request.query.get("continue", "0"))
        end = start + _PAGE
        metadata = {"resourceVersion": "1", "continue": str(end) if end < len(chosen) else ""}
        return web.json_response({"metadata": metadata, "items": chosen[start:end]})

    def _fleets(self) -> web.Response:
        if self.elsewhere is None:
            return _failure(403, "refused by the test")
        items = [{"metadata": {"name": "hotpool-operator", "namespace": name}} for name in self.elsewhere]
        return web.json_response({"metadata": {"resourceVersion": "1"}, "items": items})

    async def _dry_run(self, request: web.Request) -> web.Response:
        """Return the object that a POST or a JSON patch of top-level fields and metadata would store."""
        content, parts = await request.json(), request.path.split("/")
        self.namespaces.add(parts[5])
        if not self.may_write:
            return _failure(403, "forbidden")
        body = content if request.method == "POST" else _patched(self.objects[parts[6]][parts[7]], content)
        if refusal := self.refusals.get(body["metadata"]["name"]):
            return web.json_response(refusal, status=refusal["code"])
        return web.json_response(body)


def _patched(stored: Json, operations: list[Json]) -> Json:
    body = {**stored, "metadata": dict(stored["metadata"])}
    for item in operations:
        *parents, key = item["path"].strip("/").split("/")
        (body["metadata"] if parents else body)[key] = item["value"]
    return body


def _selected(item: Json, request: web.Request) -> bool:
    """Return True if the item matches the equality selectors of labels, name, and an Event's `regarding`."""
    labels = item["metadata"].get("labels") or {}
    for word in filter(None, request.query.get("labelSelector", "").split(",")):
        key, _, value = word.partition("=")
        if key not in labels or (value and labels[key] != value):
            return False
    regarding = {f"regarding.{key}": value for key, value in (item.get("regarding") or {}).items()}
    fields = regarding | {"metadata.name": item["metadata"]["name"]}
    words = filter(None, request.query.get("fieldSelector", "").split(","))
    return all(fields.get(key) == value for key, _, value in (word.partition("=") for word in words))


def _failure(code: int, message: str) -> web.Response:
    return web.json_response({"kind": "Status", "code": code, "message": message}, status=code)


@asynccontextmanager
async def read_api() -> AsyncIterator[ReadApi]:
    """Run a server on a free port."""
    api = ReadApi()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", api.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    api.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield api
    finally:
        await runner.cleanup()


def viewer_rules(kind: str) -> list[dict[str, Any]]:
    """Return the rules of the viewer's Role or ClusterRole in the chart; these rules contain no template."""
    return _rules("viewer/rbac.yaml", kind)


def maintainer_rules() -> list[dict[str, Any]]:
    """Return the rules of Role hotpool-maintainer in the chart; these rules contain no template."""
    return _rules("viewer/maintainer.yaml", "Role")


def _rules(template: str, kind: str) -> list[dict[str, Any]]:
    text = (REPOSITORY / "charts/hotpool/templates" / template).read_text()
    (part,) = (part for part in text.split("\n---\n") if f"\nkind: {kind}\n" in part)
    rules: list[dict[str, Any]] = yaml.safe_load(part[part.index("\nrules:\n") :])["rules"]
    return rules
