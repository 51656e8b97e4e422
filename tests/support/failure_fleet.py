"""A pool whose services have endpoints, dispatchers that report failures, and time that a test lets pass in Redis."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any

from redis import Redis
from tests.support.redis_fixture_lookup import KEYS, claimed_writer, expect_picked

from hotpool.lookup import Lookup, Picked
from hotpool.projection.documents import NodeDocument, PoolDocument, PoolServices

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from hotpool.projection.connection.async_connection import Client
    from hotpool.projection.writer import RedisWriter

FAILURES, SOURCES = KEYS.failures
_RECORD = re.compile(r"(\S+ \S+ \S+ \S+ \d+) (\d+) (\d+) (\d+) (\d+) (\d+) (\S+ \S+)")


def node(name: str, port: int = 6007, *others: str) -> NodeDocument:
    """Return a node with service `fw` of type asr. `others`: further endpoints."""
    endpoint = f"asr|fw|{port}|http|10.0.3.{int(name.rpartition('-')[2])}"
    return NodeDocument(name, (("asr", True, None, ("fw",)),), " ".join((endpoint, *others)))


async def write_fleet(
    client: Client, ready: Collection[str], suspect: Collection[str] = (), *, pool: str = "zh-en"
) -> RedisWriter:
    writer = await claimed_writer(client)
    members = frozenset(ready), frozenset(suspect), frozenset[str]()
    await writer.replace_pool(PoolDocument(pool, "u1", None, None, *members, services=PoolServices(("asr",))))
    for name in (*ready, *suspect):
        await writer.replace_node(node(name))
    await writer.stamp(complete=True)
    return writer


def dispatcher(client: Client, source: str) -> Lookup:
    return Lookup(client, namespace="speech", source=source)


async def pick_of(lookup: Lookup, name: str, others: Iterable[str], **options: Any) -> Picked:
    """Pick this node."""
    return expect_picked(await lookup.pick("zh-en", exclude=[other for other in others if other != name], **options))


async def picks(lookup: Lookup, count: int, **options: Any) -> Counter[str]:
    """Return how often each node is picked."""
    return Counter([expect_picked(await lookup.pick("zh-en", **options)).node for _ in range(count)])


async def ejected(client: Client) -> set[str]:
    """Return the nodes with an ejected service."""
    text = await client.execute_command("HGET", FAILURES, ".ejected") or b""
    return {line.split(" ")[0] for line in text.decode().splitlines()}


def shift_times(redis: Any, seconds: float) -> None:
    """Move every time of failure reports into the past. `redis`: a synchronous client."""
    earlier = round(seconds * 1000)

    def shift(found: re.Match[str]) -> str:
        head, since, length, *times, tail = found.groups()
        moved = [str(int(time) - earlier if int(time) else 0) for time in (since, *times)]
        return " ".join((head, moved[0], length, *moved[1:], tail))

    with redis.pipeline(transaction=False) as pipe:
        for name, value in redis.hgetall(FAILURES).items():
            pipe.hset(FAILURES, name, _RECORD.sub(shift, value.decode()))
        for source in redis.zrange(SOURCES, 0, -1):
            pipe.zincrby(SOURCES, -earlier, source)
        pipe.execute()


async def let_pass(client: Client, seconds: float) -> None:
    """Move every time of failure reports into the past."""
    details = client.connection_pool.connection_kwargs  # type: ignore[union-attr]
    with Redis(host=details["host"], port=details["port"], db=details["db"]) as redis:
        shift_times(redis, seconds)
