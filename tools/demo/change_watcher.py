"""Observation of the fleet: pools, slices and reports by watches of the API server, Redis by look-ups.

All times are seconds of this machine's clock, so that a stage can be measured from the agent's timestamp.
"""

import asyncio
import threading
import time
from collections import deque
from dataclasses import dataclass, replace
from datetime import datetime
from math import inf
from typing import Any, Final, Literal, NamedTuple

import urllib3
from kubernetes import client, watch

from hotpool.lookup import Lookup, LookupUnavailableError
from localfleet.fleet import GROUP, Fleet

_KINDS: Final = ("nodepools", "nodepoolslices", "nodecapabilities")
_LOOK_SECONDS: Final = 0.005
_SWEEP_SECONDS: Final = 0.5
_REMEMBERED: Final = 50
_EFFECTS_REMEMBERED: Final = 1000


@dataclass(frozen=True, slots=True)
class Change:
    """A change of a node's ready services and its effects. Times in seconds; `at` is the agent's timestamp."""

    node: str
    at: float
    lost: frozenset[str]
    gained: frozenset[str]
    report: float
    redis: float | None = None
    slices: float | None = None
    pools: frozenset[str] = frozenset()


class _Effect(NamedTuple):
    """A node that joined or left a pool at a time."""

    node: str
    pool: str
    at: float
    place: Literal["slices", "redis"]


class Observer:
    """The last observed state of the fleet; `changed` is notified at each change."""

    def __init__(self, fleet: Fleet) -> None:
        self.changed = threading.Condition()
        self.pools: dict[str, Any] = {}
        self.slices: dict[str, dict[str, str]] = {}
        """Pool → node → state."""
        self.redis: dict[str, set[str]] = {}
        """Pool → nodes."""
        self._reported: list[Change] = []
        self._effects: deque[_Effect] = deque(maxlen=_EFFECTS_REMEMBERED)
        self.failures: dict[str, str] = {}
        """Failed service and node → text with its last error."""
        self._fleet = fleet
        self._offers: dict[str, frozenset[str]] = {}
        self._bodies: dict[str, Any] = {}
        self._focus: str | None = None
        self._ended = threading.Event()

    @property
    def changes(self) -> list[Change]:
        """The last changes with their effects: those between the agent's timestamp and that of the node's next change.

        An effect may be observed before its change, because each kind has a watch of its own.
        """
        ends: dict[str, float] = {}
        found: list[Change] = []
        for change in reversed(self._reported):
            end = ends.get(change.node, inf)
            ends[change.node] = change.at
            effects = [item for item in self._effects if item.node == change.node and change.at <= item.at < end]
            times = {place: [item.at for item in effects if item.place == place] for place in ("slices", "redis")}
            last = {place: max(at) for place, at in times.items() if at}
            pools = frozenset(item.pool for item in effects if item.place == "slices")
            found.insert(0, replace(change, slices=last.get("slices"), redis=last.get("redis"), pools=pools))
        return found

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
        take = {"nodepools": self.take_pool, "nodepoolslices": self.take_slice, "nodecapabilities": self.take_node}
        while not self._ended.is_set():
            try:
                listing = self._fleet.objects.list_namespaced_custom_object
                for event in watch.Watch().stream(listing, *GROUP, self._fleet.namespace, plural):
                    with self.changed:
                        take[plural](event["object"], time.time(), gone=event["type"] == "DELETED")
                        self.changed.notify_all()
            except (client.ApiException, urllib3.exceptions.HTTPError, OSError):
                self._ended.wait(1)

    def take_pool(self, body: Any, _now: float, *, gone: bool) -> None:
        """Note a pool of a watch."""
        name = body["metadata"]["name"]
        if gone:
            self.pools.pop(name, None)
        else:
            self.pools[name] = body

    def take_slice(self, body: Any, now: float, *, gone: bool) -> None:
        """Note a slice of a watch."""
        pool = body["metadata"]["labels"]["hotpool.dev/pool"]
        self._bodies[body["metadata"]["name"]] = (pool, [] if gone else body.get("members") or [])
        members = [member for owner, found in self._bodies.values() if owner == pool for member in found]
        before, after = self.slices.get(pool, {}), {member["node"]: member["state"] for member in members}
        self.slices[pool] = after
        self._effects.extend(_Effect(node, pool, now, "slices") for node in before.keys() ^ after.keys())

    def take_node(self, body: Any, now: float, *, gone: bool) -> None:
        """Note a report of a watch."""
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
            self._reported.append(Change(node, stamp, before - offers, offers - before, now))
            del self._reported[:-_REMEMBERED]

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
            if pool == self._focus:
                self._effects.extend(_Effect(node, pool, time.time(), "redis") for node in before ^ nodes)
            self.changed.notify_all()
