"""Watch of v1 Nodes: cordons, labels, health and deletions (requirements C5, C8, D2).

Without kopf, because kopf would hold every whole Node at each LIST (10,000 are half a gigabyte), and would end when
the permission to watch is revoked. Decides nothing; a lost watch changes no Node.
"""

from collections.abc import Callable
from typing import Any

from kubernetes.aio.client import ApiClient

from hotpool.clock import Clock
from hotpool.core.model import Kind
from hotpool.kube.list_watch import Line, ListWatch
from hotpool.kube.node_json import NodeJson
from hotpool.kube.rest import path

OnObject = Callable[[Kind, str | None, Any], None]
"""Callback with kind, event type (None: part of a listing; ADDED, MODIFIED, DELETED) and the object."""

OnStateChange = Callable[[bool, str], None]
"""Callback with the health of the watch, and its error (empty while it is healthy)."""


class NodeWatch(ListWatch[NodeJson]):
    """Endless list-and-watch of all v1 Nodes. The resync finds Nodes deleted before a new list (C7)."""

    def __init__(
        self,
        api: ApiClient,
        on_object: OnObject,
        clock: Clock,
        on_state_change: OnStateChange = lambda _healthy, _error: None,
    ) -> None:
        super().__init__(api, path("v1", "nodes"), NodeJson, clock)
        self._on_object = on_object
        self._on_state_change = on_state_change
        self.error = "Nodes are not listed yet"
        """Reason for which the watch is down; empty while it is open."""

    def _disconnected(self, problem: str) -> None:
        self._set_error(f"watch of Nodes lost: {problem}")

    def _opened(self, *, listed: bool) -> None:
        del listed
        self._set_error("")

    def _set_error(self, error: str) -> None:
        self.error = error
        self._on_state_change(not error, error)

    def _receive(self, line: Line[NodeJson]) -> None:
        if line.type != "BOOKMARK":
            self._on_object(Kind.KUBE_NODE, line.type, line.object.wire_shape())
