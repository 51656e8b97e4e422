"""A client that loses or delays chosen writes, and the stored state of a pool."""

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


def make_document(
    name: str, states: dict[str, str], uid: str = "u1", former: PoolDocument | None = None
) -> PoolDocument:
    ready, suspect, draining = (
        frozenset(node for node, state in states.items() if state == wanted) for wanted in STATES
    )
    return PoolDocument(name, uid, "pairs", name, ready, suspect, draining, former)


async def stored(client: Client, name: str, *, atomic: bool = True) -> tuple[list[str | None], PoolDocument | None]:
    """Return stored term, version and digest of a pool, and the document of the stored members, read atomically.

    Without `atomic` the read is not atomic: Redis 7.0 refuses any transaction while it is full.
    """
    facts_key, *set_keys = KEYS.pool(name)
    async with client.pipeline(transaction=atomic) as pipeline:
        pipeline.hmget(facts_key, ["uid", "term", "version", "digest", "generator", "key"])
        for key in set_keys:
            pipeline.zrange(key, 0, -1)
        reply, *members = await pipeline.execute()
    facts = [part.decode() if part is not None else None for part in reply]
    if facts[0] is None:
        return [None, None, None], None
    sets = [frozenset(member.decode() for member in group) for group in members]
    return facts[1:4], PoolDocument(name, facts[0], facts[4], facts[5], sets[0], sets[1], sets[2])


def pool_write_count(how: str) -> float:
    return REGISTRY.get_sample_value("hotpool_redis_pool_writes_total", {"how": how}) or 0.0


class LossyClient:
    """A client that injects `fault` into the next write, and calls `on_command` after each command."""

    def __init__(self, client: Client, on_command: Callable[[], Any]) -> None:
        self.client = client
        self.connection_pool = client.connection_pool  # type: ignore[union-attr]
        self.on_command = on_command
        self.fault: str | None = None
        """For the next write: `lost` (executed, no reply), `never` (not executed) or `late` (executed by `deliver`)."""
        self.late: list[tuple[Any, ...]] = []

    async def execute_command(self, *words: Any) -> Any:
        fault, self.fault = (self.fault, None) if words[0] == "FCALL" else (None, self.fault)
        if fault in {"never", "late"}:
            self.late += [words] if fault == "late" else []
            raise RedisTimeoutError("injected fault")
        try:
            return await self.client.execute_command(*words)
        finally:
            await self.on_command()
            if fault == "lost":
                raise RedisTimeoutError("injected fault")

    async def deliver(self) -> None:
        """Execute the delayed writes."""
        for words in self.late:
            with suppress(RedisError):
                await self.client.execute_command(*words)
        self.late.clear()
