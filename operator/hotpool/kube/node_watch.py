"""The stream of v1 Nodes: cordons, labels and deletions, where the operator is told to follow them (C5, D2).

Feeds the reconciler as the watch of our own kinds does. Read raw, because kopf would hold every Node whole at each
listing (10,000 are half a gigabyte), and would end where the right to watch is taken away. Decides nothing; a stream
that breaks tells nothing but that it broke.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import structlog
from kubernetes.aio.client import ApiClient

from hotpool.core.model import Kind
from hotpool.kube import list_watch, node_json
from hotpool.kube.client import READ_TIMEOUT, ApiUnavailable, read_body, kube_nodes
from hotpool.kube.rest import error_text, path, send
from hotpool.observability.metrics import WATCH_UP

log = structlog.get_logger(__name__)

Feed = Callable[[Kind, str | None, Any], None]
"""Called with kind, event type (None: listed; ADDED, MODIFIED, DELETED) and the object."""

OnStateChange = Callable[[bool, str], None]
"""Told whether Nodes are heard, and why not."""

_QUIET_SECONDS = 180.0
"""A stream without a line for so long is opened anew: bookmarks come about once a minute."""


class NodeWatch:
    """Lists, then watches all v1 Nodes for ever."""

    def __init__(self, api: ApiClient, feed: Feed, tell: OnStateChange = lambda _well, _why: None) -> None:
        self._api = api
        self._feed = feed
        self._on_state_change = tell
        self.listed = asyncio.Event()
        self.error = "Nodes were not listed yet"
        """Why Nodes are not heard; empty while they are."""

    async def run(self) -> None:
        """Never returns; trouble is kept in `why` and tried again with growing, jittered delay."""
        await list_watch.run_forever(self._list, self._watch, self._disconnected)

    def _disconnected(self, error: BaseException, delay: float) -> None:
        self._connected(f"Nodes are not heard: {error if isinstance(error, ApiUnavailable) else error_text(error)}")
        log.warning("the stream of Nodes broke", error=self.error, retry_seconds=round(delay, 1))

    async def _list(self) -> str:
        """List everything; the version to watch from. What was deleted meanwhile is the audit's to find (C7)."""
        version = ""
        async for nodes, listed in kube_nodes(self._api):
            version = listed
            for node in nodes:
                self._feed(Kind.KUBE_NODE, None, node)
            await asyncio.sleep(0)
        self._connected("")
        self.listed.set()
        return version

    def _connected(self, why: str) -> None:
        self.error = why
        WATCH_UP.labels("nodes").set(not why)
        self._on_state_change(not why, why)

    async def _watch(self, version: str) -> str:
        """Read one watch to its end; the version to go on from, or nothing when it must be listed anew."""
        query, seconds = list_watch.watch_from(version), list_watch.WATCH_SECONDS + READ_TIMEOUT
        answer = await send(self._api, "GET", path("v1", "nodes"), query=query, seconds=seconds)
        try:
            if answer.status >= 400:  # noqa: PLR2004 - HTTP's own number.
                await read_body(answer, "watch nodes")
            return await self._follow(answer, version)
        finally:
            answer.close()

    async def _follow(self, answer: Any, version: str) -> str:
        """Hand on what one open watch brings, until it ends or is quiet for too long; the version to go on from."""
        rest = b""
        try:
            async for chunk in list_watch.chunks(answer, _QUIET_SECONDS):
                *lines, rest = (rest + chunk).split(b"\n")
                for event, body in (node_json.line(line) for line in lines if line):
                    if event == "ERROR":
                        return ""
                    if event != "BOOKMARK":
                        self._feed(Kind.KUBE_NODE, event, body)
                    version = body["metadata"]["resourceVersion"]
        except TimeoutError:
            pass
        return version
