"""Pods of the fake API server `fake_api`: lists and watches with selectors."""

import asyncio
import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

Json = dict[str, Any]

SECONDS = "2026-01-01T00:00:{:02}Z"


def pod(name: str, type_: str = "asr", *, node: str = "n1", ready: bool = True, **annotations: str) -> Json:
    """Return a pod that runs on the node; `annotations`: keys without hotpool.dev/, with _ for -."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "uid": f"uid-{name}",
            "creationTimestamp": SECONDS.format(0),
            "labels": {"hotpool.dev/type": type_},
            "annotations": {f"hotpool.dev/{key.replace('_', '-')}": value for key, value in annotations.items()},
        },
        "spec": {"nodeName": node, "containers": [{"name": "main", "image": "none"}]},
        "status": status(ready=ready),
    }


def status(*, ready: bool, at: int = 9) -> Json:
    """Return the status of a pod whose container started in second 5, and is ready or unready since second `at`."""
    value = "True" if ready else "False"
    return {
        "phase": "Running",
        "podIPs": [{"ip": "10.1.0.7"}, {"ip": "fd00:1::7"}],
        "conditions": [{"type": "Ready", "status": value, "lastTransitionTime": SECONDS.format(at)}],
        "containerStatuses": [
            {"name": "main", "restartCount": 0, "state": {"running": {"startedAt": SECONDS.format(5)}}}
        ],
    }


@dataclass(eq=False)
class _Watcher:
    namespace: str
    matches: Callable[[Json], bool]
    queue: asyncio.Queue[Json | None]
    bookmarks: bool


class FakePods:
    """Pods by (namespace, name). `on_watch` is called at the start of each watch."""

    def __init__(self, on_watch: Callable[[], None]) -> None:
        self.objects: dict[tuple[str, str], Json] = {}
        self.lists: list[str] = []
        """The namespace of each list request."""
        self.oldest = 0
        """The oldest version from which a watch can start."""
        self._on_watch = on_watch
        self._version = 0
        self._history: list[tuple[int, str, Json]] = []
        self._watchers: list[_Watcher] = []

    @property
    def watches(self) -> int:
        """Return the number of open watches."""
        return len(self._watchers)

    def put(self, value: Json, namespace: str = "speech") -> None:
        """Create or replace a pod."""
        key = namespace, value["metadata"]["name"]
        self._store(key, copy.deepcopy(value), "MODIFIED" if key in self.objects else "ADDED")

    def delete(self, name: str, namespace: str = "speech") -> None:
        """Delete a pod."""
        self._store((namespace, name), copy.deepcopy(self.objects[namespace, name]), "DELETED")

    def delete_without_event(self, name: str, namespace: str = "speech") -> None:
        """Delete a pod without a watch event."""
        del self.objects[namespace, name]
        self._version += 1

    def compact(self) -> None:
        """Refuse watches from older versions from now on."""
        self.oldest = self._version

    def bookmark(self) -> None:
        """Send a bookmark with the present version to every watch that asked for bookmarks."""
        event = {"type": "BOOKMARK", "object": {"kind": "Pod", "metadata": {"resourceVersion": str(self._version)}}}
        for watcher in self._watchers:
            if watcher.bookmarks:
                watcher.queue.put_nowait(event)

    def end_watches(self) -> None:
        """Close all watch streams."""
        for watcher in self._watchers:
            watcher.queue.put_nowait(None)

    async def serve(self, namespace: str, request: web.Request) -> web.StreamResponse:
        """Answer a list or a watch."""
        matches = _selection(request)
        if request.query.get("watch"):
            return await self._watch(namespace, request, matches)
        self.lists.append(namespace)
        found = [item for (space, _), item in self.objects.items() if space == namespace and matches(item)]
        return web.json_response({"metadata": {"resourceVersion": str(self._version)}, "items": found})

    def _store(self, key: tuple[str, str], value: Json, kind: str) -> None:
        self._version += 1
        value["metadata"] |= {"resourceVersion": str(self._version), "namespace": key[0]}
        if kind == "DELETED":
            del self.objects[key]
        else:
            self.objects[key] = value
        self._history.append((self._version, key[0], {"type": kind, "object": copy.deepcopy(value)}))
        for watcher in self._watchers:
            if watcher.namespace == key[0] and watcher.matches(value):
                watcher.queue.put_nowait(self._history[-1][2])

    async def _watch(self, namespace: str, request: web.Request, matches: Callable[[Json], bool]) -> web.StreamResponse:
        since = int(request.query["resourceVersion"])
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        if since < self.oldest:
            error = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "message": "too old resource version"}}
            await response.write(json.dumps(error).encode() + b"\n")
            return response
        watcher = _Watcher(namespace, matches, asyncio.Queue(), request.query.get("allowWatchBookmarks") == "true")
        for version, space, event in self._history:
            if version > since and space == namespace and matches(event["object"]):
                watcher.queue.put_nowait(event)
        self._watchers.append(watcher)
        self._on_watch()
        end = asyncio.get_running_loop().call_later(
            int(request.query["timeoutSeconds"]), watcher.queue.put_nowait, None
        )
        try:
            while (item := await watcher.queue.get()) is not None:
                await response.write(json.dumps(item).encode() + b"\n")
        except ConnectionError:
            pass
        finally:
            end.cancel()
            self._watchers.remove(watcher)
        return response


def _selection(request: web.Request) -> Callable[[Json], bool]:
    node = request.query["fieldSelector"].removeprefix("spec.nodeName=")
    label = request.query["labelSelector"]
    return lambda item: item["spec"].get("nodeName") == node and label in item["metadata"].get("labels", {})
