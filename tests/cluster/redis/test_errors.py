"""Failures of a real Redis: clear errors, no blocked event loop, and recovery without intervention (E1, E2, E5)."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from tests.support.redis_fleet import NODE, holds, pool_of, running, until

from hotpool.lookup import Lookup
from hotpool.observability.metrics import REGISTRY
from hotpool.projection.connection.async_connection import connect
from hotpool.projection.functions import LIBRARY
from hotpool.projection.keys import FleetKeys
from localfleet.redis_server import RedisServer
from localfleet.relay import Relay

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hotpool.projection.connection.async_connection import Client

KEYS = FleetKeys("hotpool", "speech")
TIMEOUT_SECONDS = 0.5
USER = ("ACL", "SETUSER", "op", "reset", "on", ">right", "~*", "+@all")


@dataclass
class RedisWithRelay:
    """A server, and the relay that the operator connects through."""

    server: RedisServer
    relay: Relay

    def ask(self, *words: str) -> bytes:
        """Run a command as administrator. Raises AssertionError if the server refuses it."""
        reply = self.server.ask(*words)
        assert not reply.startswith(b"-"), reply
        return reply

    def connect(self, timeout: float = TIMEOUT_SECONDS) -> Client:
        """Return a client of the user `op` with this timeout in seconds."""
        return connect(f"redis://op:right@127.0.0.1:{self.relay.port}/0", timeout=timeout)

    def meta(self, field: str) -> int:
        """Return a number in the projection's facts."""
        return int(self.ask("HGET", KEYS.meta, field).split(b"\r\n")[1])

    def restart(self) -> None:
        """Start the server again, empty."""
        self.server.start()
        self.ask(*USER)

    def reload(self) -> None:
        """Make the server load its data, slowed down by `key-load-delay`."""
        self.ask("CONFIG", "SET", "loading-process-events-interval-bytes", "1024")
        for number in range(2000):
            self.ask("SET", f"other-{number}", "x" * 100)
        self.ask("CONFIG", "SET", "key-load-delay", "5000")

        def run() -> None:
            with suppress(OSError):
                self.server.ask("DEBUG", "RELOAD")

        threading.Thread(target=run, daemon=True).start()


@pytest.fixture
def redis() -> Iterator[RedisWithRelay]:
    with RedisServer(options=("--enable-debug-command", "yes")) as server, Relay(server.port) as relay:
        server.ask(*USER)
        yield RedisWithRelay(server, relay)


FAULTS: dict[str, tuple[str, str, Callable[[RedisWithRelay], object], Callable[[RedisWithRelay], object]]] = {
    "full": (
        "full",
        "Redis is full (maxmemory)",
        lambda redis: redis.ask("CONFIG", "SET", "maxmemory", "1mb"),
        lambda redis: redis.ask("CONFIG", "SET", "maxmemory", "0"),
    ),
    "read-only replica": (
        "replica",
        "read-only replica",
        lambda redis: redis.ask("REPLICAOF", "127.0.0.1", "1"),
        lambda redis: redis.ask("REPLICAOF", "NO", "ONE"),
    ),
    "loading": (
        "loading",
        "loading its data",
        RedisWithRelay.reload,
        lambda redis: redis.ask("CONFIG", "SET", "key-load-delay", "0"),
    ),
    "no right to call": (
        "denied",
        "denies its user a right",
        lambda redis: redis.ask("ACL", "SETUSER", "op", "-fcall"),
        lambda redis: redis.ask("ACL", "SETUSER", "op", "+fcall"),
    ),
    "no right within": (
        "denied",
        "denies its user a right",
        lambda redis: redis.ask("ACL", "SETUSER", "op", "-hset"),
        lambda redis: redis.ask("ACL", "SETUSER", "op", "+hset"),
    ),
    "no right within a pool": (
        "denied",
        "denies its user a right",
        lambda redis: redis.ask("ACL", "SETUSER", "op", "-zadd"),
        lambda redis: redis.ask("ACL", "SETUSER", "op", "+zadd"),
    ),
    "wrong password": (
        "password",
        "does not accept the user or the password",
        lambda redis: [
            redis.ask("ACL", "SETUSER", "op", "resetpass", ">other"),
            redis.ask("CLIENT", "KILL", "USER", "op"),
        ],
        lambda redis: redis.ask("ACL", "SETUSER", "op", "resetpass", ">right"),
    ),
    "no answer": (
        "slow",
        "did not answer in time",
        lambda redis: redis.relay.hold(),
        lambda redis: redis.relay.resume(),
    ),
    "slow": (
        "slow",
        "did not answer in time",
        lambda redis: setattr(redis.relay, "delay", 2 * TIMEOUT_SECONDS),
        lambda redis: setattr(redis.relay, "delay", 0.0),
    ),
    "paused": (
        "slow",
        "did not answer in time",
        lambda redis: redis.server.pause(),
        lambda redis: redis.server.resume(),
    ),
    "gone": ("away", "cannot be reached", lambda redis: redis.server.kill(), RedisWithRelay.restart),
}


def sample(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


@pytest.mark.parametrize("name", FAULTS)
async def test_each_fault_is_reported_without_blocking_the_event_loop_and_redis_recovers(
    redis: RedisWithRelay, name: str
) -> None:
    reason, plain, inject, repair = FAULTS[name]
    async with running(redis.connect()) as fleet:
        before = sample("hotpool_redis_failures_total", reason=reason)
        await asyncio.to_thread(inject, redis)
        fleet.set_pool(pool_of("edge-1", "edge-2", "edge-3"))
        await until(lambda: plain in fleet.error)
        assert "right" not in fleet.error.replace("a right", "")
        assert sample("hotpool_redis_failures_total", reason=reason) > before
        await until(lambda: fleet.errors[-1] == fleet.error)
        fleet.set_pool(pool_of("edge-3"))
        fleet.set_node(NODE, leaving=True)
        await asyncio.to_thread(repair, redis)
        await until(lambda: fleet.healthy)
        await until(lambda: fleet.errors[-1] == "")
    await check_projection(redis, "edge-3")


async def check_projection(redis: RedisWithRelay, *nodes: str) -> None:
    async with Lookup.from_url(redis.server.url, namespace="speech") as lookup:
        found = await lookup.members("zh-en")
        assert (found.ready, found.suspect, found.draining) == (nodes, (), ())
        assert await lookup.capability("edge-1") is None
    assert redis.meta("complete") == 1


async def test_readers_of_a_full_redis_see_age_and_incompleteness(redis: RedisWithRelay) -> None:
    async with running(redis.connect()) as fleet:
        redis.ask("CONFIG", "SET", "maxmemory", "1mb")
        fleet.set_pool(pool_of("edge-1", "edge-2", "edge-3"))
        await until(lambda: redis.meta("complete") == 0)
        old_stamp = redis.meta("stampMs")
        await until(lambda: redis.meta("stampMs") > old_stamp)
        assert not fleet.healthy
        fleet.set_pool(pool_of("edge-2", "edge-3"))
        async with Lookup.from_url(redis.server.url, namespace="speech") as lookup:

            async def only_withdrawn() -> bool:
                return (await lookup.members("zh-en")).ready == ("edge-2",)

            await until(only_withdrawn)
        redis.ask("CONFIG", "SET", "maxmemory", "0")
        await until(lambda: fleet.healthy)


@pytest.mark.parametrize("lost", [("FUNCTION", "FLUSH"), ("FUNCTION", "DELETE", LIBRARY), ("SCRIPT", "FLUSH")])
async def test_flushed_functions_are_loaded_again_without_a_failure(
    redis: RedisWithRelay, lost: tuple[str, ...]
) -> None:
    async with running(redis.connect(timeout=5)) as fleet:
        redis.ask(*lost)
        fleet.set_pool(pool_of("edge-3"))
        fleet.set_node(NODE, leaving=True)
        await until(lambda: holds(redis.server, "edge-3") and redis.ask("EXISTS", KEYS.node("edge-1")) == b":0\r\n")
        assert fleet.errors == [""]
    await check_projection(redis, "edge-3")
