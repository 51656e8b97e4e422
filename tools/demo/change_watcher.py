"""Observation of the fleet: pools, slices and reports by watches of the API server, Redis by look-ups.

All times are seconds of this machine's clock, so that a stage can be measured from the agent's timestamp.
"""

import asyncio
import threading
import time
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import urllib3
from kubernetes import client, watch

from hotpool.lookup import Lookup, LookupUnavailableError
from localfleet.fleet import GROUP, Fleet

_KINDS: Final = ("nodepools", "nodepoolslices", "nodecapabilities")
_LOOK_SECONDS: Final = 0.005
_SWEEP_SECONDS: Final = 0.5
_REMEMBERED: Final = 50


@dataclass(slots=True)
class Change:
    """A change of a node's ready services and its effects. Times in seconds; `at` is the agent's timestamp."""

    node: str
    at: float
    lost: frozenset[str]
    gained: frozenset[str]
    report: float
    redis: float | None = None
    slices: float | None = None
    pools: set[str] = field(default_factory=set)


class Observer:
    """The last observed state of the fleet; `changed` is notified at each change."""

    def __init__(self, fleet: Fleet) -> None:
        self.changed = threading.Condition()
        self.pools: dict[str, Any] = {}
        self.slices: dict[str, dict[str, str]] = {}
        """Pool → node → state."""
        self.redis: dict[str, set[str]] = {}
        """Pool → nodes."""
        self.changes: list[Change] = []
        self.failures: dict[str, str] = {}
        """Failed service and node → text with its last error."""
        self._fleet = fleet
        self._offers: dict[str, frozenset[str]] = {}
        self._bodies: dict[str, Any] = {}
        self._focus: str | None = None
        self._ended = threading.Event()

    def start(self) -> None:
        """Start the watches."""
        for plural in _KINDS:
            threading.Thread(target=self._watch, args=(plural,), daemon=True).start()
        threading.Thread(target=lambda: asyncio.run(self._look()), daemon=True).start()

    def stop(self) -> None:
        """Stop observing, before the fleet is removed."""
        self._ended.set()

    def focus(self, pool: str) -> None:
        """Read this pool from Redis continuously."""
        self._focus = pool

    def _watch(self, plural: str) -> None:
        take = {"nodepools": self._take_pool, "nodepoolslices": self._take_slice, "nodecapabilities": self._take_node}
        while not self._ended.is_set():
            try:
                listing = self._fleet.objects.list_namespaced_custom_object
                for event in watch.Watch().stream(listing, *GROUP, self._fleet.namespace, plural):
                    with self.changed:
                        take[plural](event["object"], time.time(), gone=event["type"] == "DELETED")
                        self.changed.notify_all()
            except (client.ApiException, urllib3.exceptions.HTTPError, OSError):
                self._ended.wait(1)

    def _take_pool(self, body: Any, _now: float, *, gone: bool) -> None:
        name = body["metadata"]["name"]
        if gone:
            self.pools.pop(name, None)
        else:
            self.pools[name] = body

    def _take_slice(self, body: Any, now: float, *, gone: bool) -> None:
        pool = body["metadata"]["labels"]["hotpool.dev/pool"]
        self._bodies[body["metadata"]["name"]] = (pool, [] if gone else body.get("members") or [])
        members = [member for owner, found in self._bodies.values() if owner == pool for member in found]
        before, after = self.slices.get(pool, {}), {member["node"]: member["state"] for member in members}
        self.slices[pool] = after
        for node in before.keys() ^ after.keys():
            change = self._last_change(node)
            if change:
                change.slices = now
                change.pools.add(pool)

    def _take_node(self, body: Any, now: float, *, gone: bool) -> None:
        node, report = body["metadata"]["name"], (body.get("status") or {}).get("report")
        if gone or not report:
            return
        for service in report["services"]:
            where = f"{service['id']} on {node}"
            self.failures.pop(where, None)
            if service["state"] == "Failed":
                self.failures[where] = f"{where} failed: {service.get('lastError')}"
        offers = frozenset(id_ for capability in report["capabilities"] for id_ in capability.get("services") or [])
        before = self._offers.get(node)
        self._offers[node] = offers
        if before is not None and before != offers:
            stamp = datetime.fromisoformat(report["time"]).timestamp()
            self.changes.append(Change(node, stamp, before - offers, offers - before, now))
            del self.changes[:-_REMEMBERED]

    def _last_change(self, node: str) -> Change | None:
        return next((change for change in reversed(self.changes) if change.node == node), None)

    async def _look(self) -> None:
        """Read Redis: the pool in focus continuously, all pools periodically."""
        sweep_at = 0.0
        async with Lookup.from_url(self._fleet.redis_url, namespace=self._fleet.namespace) as lookup:
            while not self._ended.is_set():
                due = time.monotonic() >= sweep_at
                names = list(self.pools) if due else [self._focus] if self._focus else []
                sweep_at = time.monotonic() + _SWEEP_SECONDS if due else sweep_at
                for name in names:
                    try:
                        found = await lookup.members(name)
                    except LookupUnavailableError:
                        continue
                    self._take_redis(name, {*found.ready, *found.suspect, *found.draining})
                await asyncio.sleep(_LOOK_SECONDS)

    def _take_redis(self, pool: str, nodes: set[str]) -> None:
        with self.changed:
            before = self.redis.get(pool, set())
            if before == nodes:
                return
            self.redis[pool] = nodes
            for node in before ^ nodes:
                change = self._last_change(node)
                if change and pool == self._focus:
                    change.redis = time.time()
            self.changed.notify_all()
