"""Watch of v1 Nodes: cordons, labels, health and deletions (requirements C5, C8, D2).

Without kopf, because kopf would hold every whole Node at each LIST (10,000 are half a gigabyte), and would end when
the permission to watch is revoked. Decides nothing; a lost watch changes no Node.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import structlog
from kubernetes.aio.client import ApiClient

from hotpool.clock import Clock
from hotpool.core.model import Kind
from hotpool.kube import list_watch, node_json
from hotpool.kube.client import ApiUnavailable
from hotpool.kube.reader import pages, read_body
from hotpool.kube.rest import error_text, path, send

log = structlog.get_logger(__name__)

OnObject = Callable[[Kind, str | None, Any], None]
"""Callback with kind, event type (None: listed; ADDED, MODIFIED, DELETED) and the object."""

OnStateChange = Callable[[bool, str], None]
"""Callback with the health of the watch, and its error (empty while it is healthy)."""


class NodeWatch:
    """Endless list-and-watch of all v1 Nodes."""

    def __init__(
        self,
        api: ApiClient,
        on_object: OnObject,
        clock: Clock,
        on_state_change: OnStateChange = lambda _healthy, _error: None,
    ) -> None:
        self._api = api
        self._clock = clock
        self._on_object = on_object
        self._on_state_change = on_state_change
        self.listed = asyncio.Event()
        self.error = "Nodes are not listed yet"
        """Reason for which the watch is down; empty while it is open."""

    async def run(self) -> None:
        """List and watch until cancelled. Keep the last error in `error` and retry with growing, jittered delay."""
        await list_watch.run_forever(self._list, self._watch, self._disconnected)

    def _disconnected(self, error: BaseException, delay: float) -> None:
        self._set_error(f"watch of Nodes lost: {error if isinstance(error, ApiUnavailable) else error_text(error)}")
        log.warning("watch of Nodes lost", error=self.error, retry_seconds=round(delay, 1))

    async def _list(self) -> str:
        """List all Nodes and return the version to watch from. The resync finds Nodes deleted meanwhile (C7)."""
        version = ""
        async for nodes, listed in pages(self._api, "v1", "nodes", None):
            version = listed
            for node in nodes:
                self._on_object(Kind.KUBE_NODE, None, node_json.node(node))
                await self._clock.pace()
        self._set_error("")
        self.listed.set()
        return version

    def _set_error(self, error: str) -> None:
        self.error = error
        self._on_state_change(not error, error)

    async def _watch(self, version: str) -> str:
        """Read one watch to its end. Return the version to continue from, or an empty string to list again."""
        query, seconds = list_watch.watch_from(version), list_watch.LONGEST_SECONDS
        response = await send(self._api, "GET", path("v1", "nodes"), query=query, seconds=seconds)
        if response.status >= 400:  # noqa: PLR2004 - HTTP's own number.
            await read_body(response, "watch nodes")
        if self.error:
            self._set_error("")
        return await self._follow(response, version)

    async def _follow(self, response: Any, version: str) -> str:
        """Pass on the events of one open watch until it ends. Return the version to continue from."""
        rest = b""
        async for chunk in list_watch.chunks(response):
            *lines, rest = (rest + chunk).split(b"\n")
            for event, body in (node_json.line(line) for line in lines if line):
                if event == "ERROR":
                    return ""
                if event != "BOOKMARK":
                    self._on_object(Kind.KUBE_NODE, event, body)
                    await self._clock.pace()
                version = body["metadata"]["resourceVersion"]
        return version
