"""A writer's client that loses what it is told to lose, and what Redis then holds of a pool."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from hotpool.observability.metrics import REGISTRY
from hotpool.projection.documents import PoolDocument
from hotpool.projection.keys import STATES, FleetKeys

if TYPE_CHECKING:
    from collections.abc import Callable

    from hotpool.projection.connection.async_connection import Client

KEYS = FleetKeys("hotpool", "speech")
NODES = [f"edge-{number:02}" for number in range(40)]


def image(name: str, states: dict[str, str], uid: str = "u1", former: PoolDocument | None = None) -> PoolDocument:
    ready, suspect, draining = (
        frozenset(node for node, state in states.items() if state == wanted) for wanted in STATES
    )
    return PoolDocument(name, uid, "pairs", name, ready, suspect, draining, former)


async def stored(client: Client, name: str, *, at_once: bool = True) -> tuple[list[str | None], PoolDocument | None]:
    """Term, version and digest that Redis states of a pool, and the image of what it holds, as one reader sees it.

    Not `at_once` where nothing else happens: Redis 7.0 refuses any transaction while it is full.
    """
    facts, *sets = KEYS.pool(name)
    async with client.pipeline(transaction=at_once) as asked:
        asked.hmget(facts, ["uid", "term", "version", "digest", "generator", "key"])
        for key in sets:
            asked.zrange(key, 0, -1)
        found, *members = await asked.execute()
    told = [part.decode() if part is not None else None for part in found]
    if told[0] is None:
        return [None, None, None], None
    groups = [frozenset(member.decode() for member in group) for group in members]
    return told[1:4], PoolDocument(name, told[0], told[4], told[5], groups[0], groups[1], groups[2])


def counted(how: str) -> float:
    return REGISTRY.get_sample_value("hotpool_redis_pool_writes_total", {"how": how}) or 0.0


class Line:
    """The writer's client: what it is told to lose is lost, and after each command a reader looks."""

    def __init__(self, client: Client, look: Callable[[], Any]) -> None:
        self.client = client
        self.connection_pool = client.connection_pool  # type: ignore[union-attr]
        self.look = look
        self.fault: str | None = None
        """Of the next write: `lost` (done, unanswered), `never` (not done) or `late` (done at the next `deliver`)."""
        self.late: list[tuple[Any, ...]] = []

    async def execute_command(self, *words: Any) -> Any:
        fault, self.fault = (self.fault, None) if words[0] == "FCALL" else (None, self.fault)
        if fault in {"never", "late"}:
            self.late += [words] if fault == "late" else []
            raise RedisTimeoutError("as told")
        try:
            return await self.client.execute_command(*words)
        finally:
            await self.look()
            if fault == "lost":
                raise RedisTimeoutError("as told")

    async def deliver(self) -> None:
        """Now the server reads what came late."""
        for words in self.late:
            with suppress(RedisError):
                await self.client.execute_command(*words)
        self.late.clear()
