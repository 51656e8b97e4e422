"""A watcher of slices, as a reader of the API sees them: every membership that was ever published, in order.

Used by cluster tests of promises that must hold at every moment, not only in the end.
"""

import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from kubernetes import client, config, watch

from localfleet.fleet import GROUP

_JOIN_SECONDS: Final = 20.0


@dataclass(frozen=True, slots=True)
class Change:
    """A node came into a pool, or left it."""

    at: float
    """Monotonic seconds."""
    pool: str
    node: str
    joined: bool
    term: int
    """Of the slice that told of it."""


class SliceWatcher:
    """Watches from its start to its end; `terms` are those of the slice writes in the order in which they came."""

    def __init__(self, kubeconfig: Path, namespace: str) -> None:
        api: Any = config.new_client_from_config(str(kubeconfig))
        self._objects = client.CustomObjectsApi(api)
        self._where = (*GROUP, namespace, "nodepoolslices")
        self._watch = watch.Watch()
        self._slices: dict[str, tuple[str, set[str]]] = {}
        self.changes: list[Change] = []
        self.terms: list[int] = []
        self.members: dict[str, set[str]] = {}
        """Pool → members now."""
        self._thread = threading.Thread(target=self._run, name="slice watcher", daemon=True)
        self._stopping = False

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping = True
        self._watch.stop()
        self._thread.join(_JOIN_SECONDS)

    def left(self, pool: str) -> list[Change]:
        """Every departure from a pool."""
        return [change for change in self.changes if change.pool == pool and not change.joined]

    def _run(self) -> None:
        while not self._stopping:
            stream = self._watch.stream(
                self._objects.list_namespaced_custom_object, *self._where, timeout_seconds=int(_JOIN_SECONDS) // 4
            )
            for event in stream:
                self._take(event["type"], event["object"])

    def _take(self, event: str, body: dict[str, Any]) -> None:
        name, pool, term = body["metadata"]["name"], body["metadata"]["labels"]["hotpool.dev/pool"], body["term"]
        nodes = {member["node"] for member in body.get("members") or []} if event != "DELETED" else set()
        self._slices[name] = (pool, nodes)
        if event != "DELETED":
            self.terms.append(term)
        before = self.members.get(pool, set())
        after = set().union(*(held for owner, held in self._slices.values() if owner == pool))
        self.members[pool] = after
        now = time.monotonic()
        self.changes += [Change(now, pool, node, node in after, term) for node in sorted(before ^ after)]
