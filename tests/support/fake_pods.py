"""The pods of an API server, as a watch with selectors shows them; part of `fake_api`."""

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
    """A pod that runs on the node; `annotations`: words after hotpool.dev/."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "uid": f"uid-{name}",
            "creationTimestamp": SECONDS.format(0),
            "labels": {"hotpool.dev/type": type_},
            "annotations": {f"hotpool.dev/{key}": value for key, value in annotations.items()},
        },
        "spec": {"nodeName": node, "containers": [{"name": "main", "image": "none"}]},
        "status": status(ready=ready),
    }


def status(*, ready: bool, at: int = 9) -> Json:
    """That of a pod whose container began in second 5, and is ready, or no more, since `at`."""
    said = "True" if ready else "False"
    return {
        "phase": "Running",
        "conditions": [{"type": "Ready", "status": said, "lastTransitionTime": SECONDS.format(at)}],
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
    """Pods by (namespace, name). `pulse` is called when something was asked for."""

    def __init__(self, pulse: Callable[[], None]) -> None:
        self.objects: dict[tuple[str, str], Json] = {}
        self.lists: list[str] = []
        """Namespaces, one for each list."""
        self.oldest = 0
        """A watch from an older version is refused."""
        self._pulse = pulse
        self._version = 0
        self._history: list[tuple[int, str, Json]] = []
        self._watchers: list[_Watcher] = []

    @property
    def watches(self) -> int:
        """How many watches are open."""
        return len(self._watchers)

    def put(self, value: Json, namespace: str = "speech") -> None:
        """Make or replace a pod."""
        key = namespace, value["metadata"]["name"]
        self._store(key, copy.deepcopy(value), "MODIFIED" if key in self.objects else "ADDED")

    def delete(self, name: str, namespace: str = "speech") -> None:
        """A pod is gone."""
        self._store((namespace, name), copy.deepcopy(self.objects[namespace, name]), "DELETED")

    def forget(self, name: str, namespace: str = "speech") -> None:
        """A pod is gone, and no watch tells so."""
        del self.objects[namespace, name]
        self._version += 1

    def compact(self) -> None:
        """No watch can begin before this moment any more."""
        self.oldest = self._version

    def bookmark(self) -> None:
        """Tell every watch that asked for it that it has heard everything so far."""
        told = {"type": "BOOKMARK", "object": {"kind": "Pod", "metadata": {"resourceVersion": str(self._version)}}}
        for watcher in self._watchers:
            if watcher.bookmarks:
                watcher.queue.put_nowait(told)

    def end_watches(self) -> None:
        """Close all watch streams."""
        for watcher in self._watchers:
            watcher.queue.put_nowait(None)

    async def serve(self, namespace: str, request: web.Request) -> web.StreamResponse:
        """A list or a watch."""
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
            gone = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "message": "too old resource version"}}
            await response.write(json.dumps(gone).encode() + b"\n")
            return response
        watcher = _Watcher(namespace, matches, asyncio.Queue(), request.query.get("allowWatchBookmarks") == "true")
        for version, space, event in self._history:
            if version > since and space == namespace and matches(event["object"]):
                watcher.queue.put_nowait(event)
        self._watchers.append(watcher)
        self._pulse()
        end = asyncio.get_running_loop().call_later(
            int(request.query["timeoutSeconds"]), watcher.queue.put_nowait, None
        )
        try:
            while (told := await watcher.queue.get()) is not None:
                await response.write(json.dumps(told).encode() + b"\n")
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
