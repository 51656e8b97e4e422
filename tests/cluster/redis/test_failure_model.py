"""Random reports of three dispatchers about five nodes, against a model of ejections in Python (E8)."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis
from tests.support.failure_fleet import FAILURES, SOURCES, shift_times, write_fleet
from tests.support.redis_fixture_lookup import KEYS

from hotpool.projection.functions import build_call

if TYPE_CHECKING:
    from hotpool.projection.connection.async_connection import Client
    from localfleet.redis_server import RedisServer

NODES = [f"edge-{number}" for number in range(5)]
REPORTS = st.tuples(
    st.sampled_from(["success", "error", "unreachable", "unreachable"]),
    st.sampled_from(["one", "two", "three"]),
    st.sampled_from(NODES),
)
WAITS = st.sampled_from([35.0, 70.0, 350.0])
"""Seconds. No sum of them is close to a time limit, so that the time of the test itself does not matter."""
STEP = 0.02


@dataclass
class Service:
    """Model of one service of a node."""

    errors: int = 0
    length: float = 0.0
    since: float = 0.0
    until: float = 0.0
    """0: not ejected."""
    sources: set[str] = field(default_factory=set)
    doubted: str | None = None
    at: float = 0.0

    def end(self) -> None:
        self.errors, self.length, self.since, self.until, self.sources = 0, 0.0, 0.0, 0.0, set()


class Model:
    """Ejections of a pool of five nodes. `now`: seconds."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.services: defaultdict[str, Service] = defaultdict(Service)
        self.succeeded: dict[str, float] = {}
        self.cut_off: dict[str, float] = {}

    def report(self, kind: str, source: str, node: str) -> str:
        service = self.services[node]
        if kind == "success":
            self.succeeded[source] = self.now
            self._succeed(service, source)
            return "Counted"
        if service.doubted == source and self.now - service.at <= 300:
            return "Doubted"
        ejects = bool(service.until) or kind == "unreachable" or service.errors == 2
        if ejects and self._is_cut_off(source, node):
            for other in self.services.values():
                if source in other.sources:
                    other.sources.discard(source)
                    if not other.sources:
                        other.end()
            self.cut_off[source] = self.now
            return "CutOff"
        service.errors, service.doubted, service.at = service.errors + 1, None, self.now
        if not ejects:
            return "Counted"
        service.sources.add(source)
        if service.until > self.now:
            return "Counted"
        service.length = min(300.0, 2 * service.length) if service.until else 30.0
        service.since = service.since or self.now
        service.until = self.now + service.length
        return "Ejected"

    def _succeed(self, service: Service, source: str) -> None:
        if 0 < service.until <= self.now and len(service.sources) == 1 and source not in service.sources:
            service.doubted, service.at = next(iter(service.sources)), self.now
        elif service.doubted == source or self.now - service.at > 300:
            service.doubted = None
        service.end()

    def _is_cut_off(self, source: str, node: str) -> bool:
        success, cut = self.succeeded.get(source, 0.0), self.cut_off.get(source)
        if cut is not None and success < cut:
            return True
        mine = {name: known.since for name, known in self.services.items() if source in known.sources}
        if len({*mine, node}) <= len(NODES) // 2:
            return False
        oldest = min(mine.values(), default=float("inf"))
        return self.now - success > 60 or (cut is None and success <= oldest)

    @property
    def ejected(self) -> dict[str, tuple[int, float, frozenset[str], str | None]]:
        return {
            name: (item.errors, item.length, frozenset(item.sources), item.doubted)
            for name, item in self.services.items()
            if item.until
        }


def stored(redis: Any) -> dict[str, tuple[int, float, frozenset[str], str | None]]:
    """Return the ejected services as Redis holds them."""
    found = {}
    for line in (redis.hget(FAILURES, ".ejected") or b"").decode().splitlines():
        words = line.split(" ")
        doubted = None if words[11] == "-" else words[11]
        found[words[0]] = (int(words[4]), int(words[6]) / 1000, frozenset(words[10].split(",")), doubted)
        assert redis.hget(FAILURES, f"{words[0]} fw").decode() == line
    return found


def call(redis: Any, name: str, keys: Any, *arguments: Any, writes: bool = False) -> str:
    reply: bytes = redis.execute_command(*build_call(name, keys, arguments, writes=writes))
    return reply.decode()


def picked(redis: Any) -> tuple[str, str]:
    keys = (KEYS.meta, *KEYS.pool("zh-en")[:3], KEYS.endpoints, KEYS.services("zh-en"), FAILURES)
    words = call(redis, "pick", keys, "uniform", "0.5").split(" ")
    return words[0], words[1]


async def test_reports_do_what_the_model_says(server: RedisServer, client: Client) -> None:
    await write_fleet(client, NODES)
    with Redis.from_url(server.url) as redis:

        @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
        @given(st.lists(REPORTS | WAITS, max_size=40))
        def course(steps: list[Any]) -> None:
            redis.delete(FAILURES, SOURCES)
            model = Model()
            for step in steps:
                seconds = step if isinstance(step, float) else STEP
                shift_times(redis, seconds)
                model.now += seconds
                if isinstance(step, float):
                    continue
                kind, source, node = step
                keys = (FAILURES, SOURCES, KEYS.endpoints, KEYS.pool("zh-en")[1])
                service = ("fw", 6007, f"10.0.3.{re.sub(r'.*-', '', node)}")
                assert call(redis, "report_outcome", keys, source, "zh-en", kind, node, *service, writes=True) == (
                    model.report(kind, source, node)
                )
                assert stored(redis) == model.ejected
                name, state = picked(redis)
                assert (name in model.ejected) == (state == "Ejected") == (len(model.ejected) == len(NODES))

        course()
