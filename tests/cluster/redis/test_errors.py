"""Failures of a real Redis: clear errors, no blocked caller, and recovery without intervention (E1, E2, E5)."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from tests.support.redis_fixture_publisher import HANG_SECONDS, PublisherHarness, pool, running, until

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
class RedisWithRelay:
    """A server, and the relay that the operator connects through."""

    server: RedisServer
    relay: Relay

    def ask(self, *words: str) -> bytes:
        """Run a command as administrator. Raises AssertionError if the server refuses it."""
        reply = self.server.ask(*words)
        assert not reply.startswith(b"-"), reply
        return reply

    def harness(self, timeout: float = TIMEOUT_SECONDS) -> PublisherHarness:
        """Return a publisher of the user `op` with this timeout in seconds."""
        return PublisherHarness(connect(f"redis://op:right@127.0.0.1:{self.relay.port}/0", timeout=timeout))

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
async def test_each_fault_is_reported_without_blocking_callers_and_redis_recovers(
    redis: RedisWithRelay, name: str
) -> None:
    reason, plain, inject, repair = FAULTS[name]
    async with running(redis.harness()) as harness:
        assert (harness.publisher.last_error, sample("hotpool_redis_up")) == ("", 1)
        before = sample("hotpool_redis_failures_total", reason=reason)
        await asyncio.to_thread(inject, redis)
        async with asyncio.timeout(HANG_SECONDS):
            first = await harness.publisher.publish_pool(pool("edge-1", "edge-2", "edge-3"))
        await until(lambda: not harness.publisher.healthy and plain in harness.publisher.last_error)
        assert not first or name == "loading"  # loading may begin slightly later
        assert "right" not in harness.publisher.last_error.replace("a right", "")
        assert sample("hotpool_redis_up") == 0
        assert sample("hotpool_redis_failures_total", reason=reason) > before
        assert harness.state_changes[-1] == (False, harness.publisher.last_error)
        loop_runs: list[str] = []
        asyncio.get_running_loop().call_soon(loop_runs.append, "the event loop ran")
        async with asyncio.timeout(HANG_SECONDS):
            assert not await harness.publisher.publish_pool(pool("edge-3"))
            await harness.publisher.withdraw_node("edge-1")
        # A full Redis still accepts removals, so changes are sent. Otherwise the calls do not yield to the event loop.
        assert (loop_runs == []) == (name != "full")
        await asyncio.to_thread(repair, redis)
        await until(lambda: harness.publisher.healthy)
        assert (harness.publisher.last_error, harness.state_changes[-1]) == ("", (True, ""))
    await check_projection(redis, "edge-3")


async def check_projection(redis: RedisWithRelay, *nodes: str) -> None:
    async with Lookup.from_url(redis.server.url, namespace="speech") as lookup:
        found = await lookup.members("zh-en")
        assert (found.ready, found.suspect, found.draining) == (nodes, (), ())
        assert await lookup.capability("edge-1") is None
    assert b"complete\r\n$1\r\n1\r\n" in redis.server.ask("HGETALL", KEYS.meta)


async def test_readers_of_a_full_redis_see_age_and_incompleteness(redis: RedisWithRelay) -> None:
    def meta(field: str) -> int:
        return int(redis.ask("HGET", KEYS.meta, field).split(b"\r\n")[1])

    async with running(redis.harness()) as harness:
        redis.ask("CONFIG", "SET", "maxmemory", "1mb")
        assert not await harness.publisher.publish_pool(pool("edge-1", "edge-2", "edge-3"))
        await until(lambda: meta("complete") == 0)
        old_stamp = meta("stampMs")
        await until(lambda: meta("stampMs") > old_stamp)
        assert not harness.publisher.healthy
        await harness.publisher.publish_pool(pool("edge-2", "edge-3"))
        async with Lookup.from_url(redis.server.url, namespace="speech") as lookup:

            async def only_withdrawn() -> bool:
                return (await lookup.members("zh-en")).ready == ("edge-2",)

            await until(only_withdrawn)
        redis.ask("CONFIG", "SET", "maxmemory", "0")
        await until(lambda: harness.publisher.healthy)


@pytest.mark.parametrize("lost", [("FUNCTION", "FLUSH"), ("FUNCTION", "DELETE", LIBRARY), ("SCRIPT", "FLUSH")])
async def test_flushed_functions_are_loaded_again_without_a_failure(
    redis: RedisWithRelay, lost: tuple[str, ...]
) -> None:
    async with running(redis.harness(timeout=5)) as harness:
        redis.ask(*lost)
        assert await harness.publisher.publish_pool(pool("edge-3"))
        await harness.publisher.withdraw_node("edge-1")
        assert harness.publisher.healthy
        assert all(well for well, _ in harness.state_changes)
    await check_projection(redis, "edge-3")
