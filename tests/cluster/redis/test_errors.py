"""What can be wrong with a real Redis: said plainly, nobody held up, and caught up by itself afterwards (E1, E5).

Requirements E2.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from tests.support.redis_fixture_publisher import HANG_SECONDS, Ours, pool, running, until

from hotpool.lookup import Lookup
from hotpool.observability.metrics import REGISTRY
from hotpool.projection.connection.async_connection import connect
from hotpool.projection.functions import LIBRARY
from hotpool.projection.keys import FleetKeys
from localfleet.redis_server import RedisServer
from localfleet.relay import Relay

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

KEYS = FleetKeys("hotpool", "speech")
TIMEOUT_SECONDS = 0.5
USER = ("ACL", "SETUSER", "op", "reset", "on", ">right", "~*", "+@all")


@dataclass
class Place:
    """A server, and the way of the operator to it."""

    server: RedisServer
    relay: Relay

    def ask(self, *words: str) -> bytes:
        """Tell the server something as an administrator; raises where it refuses."""
        answer = self.server.ask(*words)
        assert not answer.startswith(b"-"), answer
        return answer

    def ours(self, timeout: float = TIMEOUT_SECONDS) -> Ours:
        """A mirror of the user `op`, which waits so many seconds for an answer."""
        return Ours(connect(f"redis://op:right@127.0.0.1:{self.relay.port}/0", timeout=timeout))

    def restart(self) -> None:
        """Start it again, empty."""
        self.server.start()
        self.ask(*USER)

    def reload(self) -> None:
        """Make it load its data for as long as `key-load-delay` says."""
        self.ask("CONFIG", "SET", "loading-process-events-interval-bytes", "1024")
        for number in range(2000):
            self.ask("SET", f"other-{number}", "x" * 100)
        self.ask("CONFIG", "SET", "key-load-delay", "5000")

        def run() -> None:
            with suppress(OSError):
                self.server.ask("DEBUG", "RELOAD")

        threading.Thread(target=run, daemon=True).start()


@pytest.fixture
def place() -> Iterator[Place]:
    with RedisServer(options=("--enable-debug-command", "yes")) as server, Relay(server.port) as relay:
        server.ask(*USER)
        yield Place(server, relay)


FAULTS: dict[str, tuple[str, str, Callable[[Place], object], Callable[[Place], object]]] = {
    "full": (
        "full",
        "Redis is full (maxmemory)",
        lambda place: place.ask("CONFIG", "SET", "maxmemory", "1mb"),
        lambda place: place.ask("CONFIG", "SET", "maxmemory", "0"),
    ),
    "read-only replica": (
        "replica",
        "read-only replica",
        lambda place: place.ask("REPLICAOF", "127.0.0.1", "1"),
        lambda place: place.ask("REPLICAOF", "NO", "ONE"),
    ),
    "loading": (
        "loading",
        "loading its data",
        Place.reload,
        lambda place: place.ask("CONFIG", "SET", "key-load-delay", "0"),
    ),
    "no right to call": (
        "denied",
        "denies its user a right",
        lambda place: place.ask("ACL", "SETUSER", "op", "-fcall"),
        lambda place: place.ask("ACL", "SETUSER", "op", "+fcall"),
    ),
    "no right within": (
        "denied",
        "denies its user a right",
        lambda place: place.ask("ACL", "SETUSER", "op", "-hset"),
        lambda place: place.ask("ACL", "SETUSER", "op", "+hset"),
    ),
    "wrong password": (
        "password",
        "does not accept the user or the password",
        lambda place: [
            place.ask("ACL", "SETUSER", "op", "resetpass", ">other"),
            place.ask("CLIENT", "KILL", "USER", "op"),
        ],
        lambda place: place.ask("ACL", "SETUSER", "op", "resetpass", ">right"),
    ),
    "no answer": (
        "slow",
        "did not answer in time",
        lambda place: place.relay.hold(),
        lambda place: place.relay.resume(),
    ),
    "slow": (
        "slow",
        "did not answer in time",
        lambda place: setattr(place.relay, "delay", 2 * TIMEOUT_SECONDS),
        lambda place: setattr(place.relay, "delay", 0.0),
    ),
    "paused": (
        "slow",
        "did not answer in time",
        lambda place: place.server.pause(),
        lambda place: place.server.resume(),
    ),
    "gone": ("away", "cannot be reached", lambda place: place.server.kill(), Place.restart),
}


def sample(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


@pytest.mark.parametrize("name", FAULTS)
async def test_it_is_said_plainly_nobody_waits_and_redis_catches_up(place: Place, name: str) -> None:
    reason, plain, breaks, mends = FAULTS[name]
    async with running(place.ours()) as ours:
        assert (ours.mirror.last_error, sample("hotpool_redis_up")) == ("", 1)
        before = sample("hotpool_redis_failures_total", reason=reason)
        await asyncio.to_thread(breaks, place)
        async with asyncio.timeout(HANG_SECONDS):
            first = await ours.mirror.publish_pool(pool("edge-1", "edge-2", "edge-3"))
        await until(lambda: not ours.mirror.healthy and plain in ours.mirror.last_error)
        assert not first or name == "loading"  # it may begin to load a moment later
        assert "right" not in ours.mirror.last_error.replace("a right", "")
        assert sample("hotpool_redis_up") == 0
        assert sample("hotpool_redis_failures_total", reason=reason) > before
        assert ours.told[-1] == (False, ours.mirror.last_error)
        turns: list[str] = []
        asyncio.get_running_loop().call_soon(turns.append, "a turn of the loop")
        assert not await ours.mirror.publish_pool(pool("edge-3"))
        await ours.mirror.withdraw_node("edge-1")
        assert turns == []  # nothing was waited for
        await asyncio.to_thread(mends, place)
        await until(lambda: ours.mirror.healthy)
        assert (ours.mirror.last_error, ours.told[-1]) == ("", (True, ""))
    await holds(place, "edge-3")


async def holds(place: Place, *nodes: str) -> None:
    async with Lookup.from_url(place.server.url, namespace="speech") as lookup:
        found = await lookup.members("zh-en")
        assert (found.ready, found.suspect, found.draining) == (nodes, (), ())
        assert await lookup.capability("edge-1") is None
    assert b"complete\r\n$1\r\n1\r\n" in place.server.ask("HGETALL", KEYS.meta)


async def test_readers_of_a_full_redis_see_its_age_and_that_it_is_incomplete(place: Place) -> None:
    def meta(field: str) -> int:
        return int(place.ask("HGET", KEYS.meta, field).split(b"\r\n")[1])

    async with running(place.ours()) as ours:
        place.ask("CONFIG", "SET", "maxmemory", "1mb")
        assert not await ours.mirror.publish_pool(pool("edge-1", "edge-2", "edge-3"))
        await until(lambda: meta("complete") == 0)
        stamped = meta("stampMs")
        await until(lambda: meta("stampMs") > stamped)
        assert not ours.mirror.healthy
        await ours.mirror.publish_pool(pool("edge-2", "edge-3"))
        async with Lookup.from_url(place.server.url, namespace="speech") as lookup:

            async def only_withdrawn() -> bool:
                return (await lookup.members("zh-en")).ready == ("edge-2",)

            await until(only_withdrawn)
        place.ask("CONFIG", "SET", "maxmemory", "0")
        await until(lambda: ours.mirror.healthy)


@pytest.mark.parametrize("lost", [("FUNCTION", "FLUSH"), ("FUNCTION", "DELETE", LIBRARY), ("SCRIPT", "FLUSH")])
async def test_flushed_functions_are_loaded_again_without_a_failure(place: Place, lost: tuple[str, ...]) -> None:
    async with running(place.ours(timeout=5)) as ours:
        place.ask(*lost)
        assert await ours.mirror.publish_pool(pool("edge-3"))
        await ours.mirror.withdraw_node("edge-1")
        assert ours.mirror.healthy
        assert all(well for well, _ in ours.told)
    await holds(place, "edge-3")
