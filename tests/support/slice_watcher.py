"""A watcher of slices, which records every published membership in order."""

import threading
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from kubernetes import client, config, watch

from localfleet.fleet import GROUP

_JOIN_SECONDS: Final = 20.0


@dataclass(frozen=True, slots=True)
class Change:
    """A node joined or left a pool."""

    at: float
    """Monotonic seconds."""
    pool: str
    node: str
    joined: bool
    term: int
    """Term of the slice that changed."""


class SliceWatcher:
    """Watches all slices of a namespace from its start to its end, without a gap."""

    def __init__(self, kubeconfig: Path, namespace: str) -> None:
        api: Any = config.new_client_from_config(str(kubeconfig))
        self._list = client.CustomObjectsApi(api).list_namespaced_custom_object
        self._where = (*GROUP, namespace, "nodepoolslices")
        self._watch = watch.Watch()
        self._version = ""
        self._slices: dict[str, tuple[str, dict[str, str]]] = {}
        self.changes: list[Change] = []
        self.terms: list[int] = []
        """Terms of all writes, in order."""
        self.memberships: defaultdict[str, list[dict[str, str]]] = defaultdict(list)
        """Pool → membership (node → state) at the start, if it has slices then, and after each write."""
        self._thread = threading.Thread(target=self._run, name="slice watcher", daemon=True)
        self._stopping = False
        self._failed: Exception | None = None

    def __enter__(self) -> Self:
        listed: Any = self._list(*self._where)
        self._version = listed["metadata"]["resourceVersion"]
        for body in listed["items"]:
            self._store(body)
        for pool in {pool for pool, _ in self._slices.values()}:
            self.memberships[pool].append(self._members(pool))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Raise RuntimeError if the watch ended early, because then changes are missing."""
        self._stopping = True
        self._watch.stop()
        self._thread.join(_JOIN_SECONDS)
        if self._failed:
            raise RuntimeError("the watch of slices ended early") from self._failed

    def members(self, pool: str) -> set[str]:
        """Return the present members of a pool."""
        return set(self._members(pool))

    def departures(self, pool: str) -> list[Change]:
        """Return every departure from a pool."""
        return [change for change in self.changes if change.pool == pool and not change.joined]

    def _run(self) -> None:
        seconds = int(_JOIN_SECONDS) // 4
        try:
            while not self._stopping:
                for event in self._watch.stream(
                    self._list, *self._where, resource_version=self._version, timeout_seconds=seconds
                ):
                    self._apply(event["type"], event["object"])
        except Exception as error:  # noqa: BLE001 - raised by __exit__; a stop closes the connection under the reader.
            self._failed = None if self._stopping else error

    def _apply(self, event: str, body: dict[str, Any]) -> None:
        self._version = body["metadata"]["resourceVersion"]
        pool, term = body["metadata"]["labels"]["hotpool.dev/pool"], body["term"]
        before = set(self._members(pool))
        if event == "DELETED":
            self._slices.pop(body["metadata"]["name"], None)
        else:
            self._store(body)
            self.terms.append(term)
        now, after = time.monotonic(), self._members(pool)
        self.memberships[pool].append(after)
        self.changes += [Change(now, pool, node, node in after, term) for node in sorted(before ^ set(after))]

    def _store(self, body: dict[str, Any]) -> None:
        members = {member["node"]: member["state"] for member in body.get("members") or []}
        self._slices[body["metadata"]["name"]] = (body["metadata"]["labels"]["hotpool.dev/pool"], members)

    def _members(self, pool: str) -> dict[str, str]:
        slices = [members for owner, members in self._slices.values() if owner == pool]
        return {node: state for members in slices for node, state in members.items()}
