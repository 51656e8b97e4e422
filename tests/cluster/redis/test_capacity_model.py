"""Random reservations against a model of slots in Python (E9): the slots in use are exactly those that are held."""

from __future__ import annotations

import secrets
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis
from tests.support.capacity_fleet import SLOT_EXPIRIES, SLOTS, Limits, write_fleet
from tests.support.redis_fixture_lookup import EXPIRIES

from hotpool.lookup import NoMember, Reason, Reservation, SyncLookup

if TYPE_CHECKING:
    import pytest

    from hotpool.projection.connection.async_connection import Client
    from localfleet.redis_server import RedisServer

TYPES = ("asr", "llm")
FLEET = {
    "a": Limits({("asr", "fw"): 1, ("asr", "vosk"): 2, ("llm", "qwen"): 2}),
    "b": Limits({("asr", "fw"): 3, ("asr", "vosk"): None, ("llm", "qwen"): None}, {"asr": 3}),
    "c": Limits({("asr", "fw"): 2, ("llm", "qwen"): 1, ("llm", "gemma"): 4}, {"llm": 3, "asr": 9}),
}
HOW: list[dict[str, Any]] = [
    {},
    {"strategy": "least-loaded"},
    {"key": "user-1"},
    {"types": ["asr"]},
    {"types": ["llm"], "strategy": "least-loaded"},
    {"exclude": ["a"]},
]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["reserve"] * 6 + ["again", "renew", "renew", "release", "expire", "lose all"]),
        st.integers(0, 2**16),
    ),
    min_size=1,
    max_size=60,
)


@dataclass
class Model:
    """Reservations that Redis must hold. `known`: every one that was ever made. `released`: ids."""

    held: dict[str, Reservation] = field(default_factory=dict)
    released: set[str] = field(default_factory=set)
    known: list[tuple[Reservation, dict[str, Any]]] = field(default_factory=list)

    def slots(self) -> Counter[tuple[str, str]]:
        """Return (node, service) to the number in use."""
        return Counter((one.node, service) for one in self.held.values() for service in one.services.values())

    def has_room(self, node: str, kind: str, service: str) -> bool:
        """Return True if one more may use the service."""
        limits, used = FLEET[node], self.slots()
        limit, cap = limits.services[kind, service], limits.types.get(kind)
        of_type = sum(used[node, id_] for type_, id_ in limits.services if type_ == kind)
        return (limit is None or used[node, service] < limit) and (cap is None or of_type < cap)

    def can_reserve(self, how: dict[str, Any]) -> bool:
        """Return True if a node has room in a service of each type."""
        kinds = how.get("types", TYPES)
        return any(
            all(any(self.has_room(node, *place) for place in limits.services if place[0] == kind) for kind in kinds)
            for node, limits in FLEET.items()
            if node not in how.get("exclude", ())
        )


class Course:
    """One random course on a real server."""

    def __init__(self, lookup: SyncLookup, redis: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lookup, self.redis, self.model = lookup, redis, Model()
        self._monkeypatch = monkeypatch

    def run(self, action: str, number: int) -> None:
        """Do one step, and compare the result and the slots in use with the model."""
        model, known = self.model, self.model.known
        if action == "reserve" or not known:
            how = HOW[number % len(HOW)]
            self._check_reserved(self.lookup.pick("zh-en", reserve=60, **how), how)
        elif action == "lose all":
            self.lose_all()
        else:
            one, how = known[number % len(known)]
            {"again": self._again, "renew": self._renew, "release": self._release, "expire": self._expire}[action](
                one, how
            )
        stored = {name.decode(): int(value) for name, value in self.redis.hgetall(SLOTS).items()}
        assert stored == {f"{node} {service}": count for (node, service), count in model.slots().items()}

    def lose_all(self) -> None:
        """Delete all loads. A damaged key makes the next purge forget which pools were full, as 100 ms would do."""
        self.redis.delete(*self.redis.keys("*:load*") or ["none"])
        self.redis.set(SLOTS, "damaged")
        self.lookup.release("unknown")
        self.model.held.clear()

    def _check_reserved(self, found: Any, how: dict[str, Any]) -> None:
        if isinstance(found, NoMember):
            assert (found.reason, self.model.can_reserve(how)) == (Reason.FULL, False)
            return
        one = found.reservation
        assert set(one.services) == set(how.get("types", TYPES))
        assert all(self.model.has_room(one.node, *place) for place in one.services.items()), one
        self.model.held[one.id] = one
        self.model.known.append((one, how))

    def _again(self, one: Reservation, how: dict[str, Any]) -> None:
        """Send the same id again, as after an answer that was lost."""
        self.model.held.pop(one.id, None)
        self.model.released.discard(one.id)
        with self._monkeypatch.context() as patch:
            patch.setattr(secrets, "token_hex", lambda _: one.id)
            self._check_reserved(self.lookup.pick("zh-en", reserve=60, **how), how)

    def _renew(self, one: Reservation, _: dict[str, Any]) -> None:
        renewed = self.lookup.renew(one, 60)
        if one.id in self.model.held:
            assert renewed
            assert renewed.node == self.model.held[one.id].node or renewed.node == one.node
            return
        has_room = all(self.model.has_room(one.node, *place) for place in one.services.items())
        assert (renewed is not None) == (has_room and one.id not in self.model.released)
        if renewed:
            self.model.held[one.id] = one

    def _release(self, one: Reservation, _: dict[str, Any]) -> None:
        assert self.lookup.release(one) == (self.model.held.pop(one.id, None) is not None)
        self.model.released.add(one.id)

    def _expire(self, one: Reservation, _: dict[str, Any]) -> None:
        """Move the end of the reservation into the past. A release then purges it, as the clock alone would do."""
        for key in (EXPIRIES, SLOT_EXPIRIES):
            self.redis.execute_command("ZADD", key, "XX", 1, one.id)
        self.lookup.release("unknown")
        self.model.held.pop(one.id, None)


async def test_random_reservations_use_exactly_the_slots_that_are_held(
    client: Client, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two services of one type, limits of types, answers that were lost, expiry, and a Redis that lost all loads."""
    await write_fleet(client, FLEET, TYPES)

    @given(STEPS)
    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    def run(steps: list[tuple[str, int]]) -> None:
        with SyncLookup.from_url(server.url, namespace="speech") as lookup, Redis.from_url(server.url) as redis:
            course = Course(lookup, redis, monkeypatch)
            course.lose_all()
            for action, number in steps:
                course.run(action, number)

    run()
