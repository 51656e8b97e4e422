"""A Redis that is full (maxmemory, noeviction): whatever has left is removed at once, what joins waits (E5)."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from tests.support.lossy_redis import KEYS, make_document, stored
from tests.support.redis_fixture_lookup import claimed_writer
from tests.support.redis_fixture_publisher import PublisherHarness, until

from hotpool.projection.documents import NodeDocument, PoolDocument
from hotpool.projection.redis_errors import RedisFullError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from hotpool.projection.connection.async_connection import Client

POOLS = 132
NAMES = [f"edge-{number:04}" for number in range(600)]


@asynccontextmanager
async def full(client: Client) -> AsyncIterator[None]:
    """Keep the server full within the block."""
    await client.config_set("maxmemory-policy", "noeviction")
    await client.config_set("maxmemory", "1mb")
    try:
        yield
    finally:
        await client.config_set("maxmemory", "0")


async def members(client: Client, pool: str = "zh-en") -> frozenset[str]:
    document = (await stored(client, pool, atomic=False))[1]
    return document.ready | document.suspect | document.draining if document else frozenset()


async def test_a_new_leader_removes_departed_members_that_a_former_one_wrote(client: Client) -> None:
    await (await claimed_writer(client, 3)).replace_pool(make_document("zh-en", dict.fromkeys(NAMES, "ready")))
    successor = await claimed_writer(client, 4)
    wanted = make_document("zh-en", dict.fromkeys([*NAMES[301:], "new"], "ready"))
    async with full(client):
        with pytest.raises(RedisFullError):
            await successor.replace_pool(wanted)
        assert await members(client) == {*NAMES[301:]}
    await successor.replace_pool(wanted)
    assert await members(client) == wanted.ready


async def test_a_pool_of_that_name_with_another_uid_is_deleted(client: Client) -> None:
    await (await claimed_writer(client, 3)).replace_pool(make_document("zh-en", {"edge-1": "ready"}))
    successor = await claimed_writer(client, 4)
    async with full(client):
        with pytest.raises(RedisFullError):
            await successor.replace_pool(make_document("zh-en", {"edge-2": "ready"}, uid="another"))
        assert await members(client) == frozenset()


async def test_a_stopped_service_is_withdrawn_and_a_new_node_waits(client: Client) -> None:
    writer = await claimed_writer(client)
    await writer.replace_node(NodeDocument("a", (("asr", True, None, ("fw",)), ("tts", True, None, ("p",)))))
    async with full(client):
        await writer.replace_node(NodeDocument("a", (("asr", False, "Stopped", ()), ("tts", True, None, ("p",)))))
        fields = await client.execute_command("HMGET", KEYS.node("a"), "asr", "tts")
        assert [json.loads(field)["ready"] for field in fields] == [False, True]
        many = tuple((f"type-{number}", True, None, ("service",)) for number in range(60))
        for document in (NodeDocument("b", many[:1]), NodeDocument("a", many)):
            with pytest.raises(RedisFullError):
                await writer.replace_node(document)


def pool(number: int, *nodes: str) -> PoolDocument:
    return PoolDocument(f"p{number}", f"u{number}", None, None, frozenset(nodes), frozenset(), frozenset())


async def publish_all(harness: PublisherHarness, *nodes: str) -> None:
    for number in range(POOLS):
        await harness.publisher.publish_pool(pool(number, *nodes))


async def gone(client: Client, node: str) -> bool:
    scores = [await client.zscore(KEYS.pool(f"p{number}")[1], node) for number in range(POOLS)]
    return not any(score is not None for score in scores)


async def test_a_dead_node_leaves_every_pool_while_each_pool_also_grows(client: Client) -> None:
    harness = PublisherHarness(client)
    await publish_all(harness, "a", "b")
    rounds = asyncio.create_task(harness.publisher.run())
    try:
        await until(lambda: harness.publisher.healthy)
        async with full(client):
            await publish_all(harness, "b", "new")
            await until(lambda: gone(client, "a"))
            assert not harness.publisher.healthy
        await until(lambda: harness.publisher.healthy)
        assert await members(client, "p7") == {"b", "new"}
    finally:
        rounds.cancel()
        await asyncio.gather(rounds, return_exceptions=True)


async def test_a_dead_node_leaves_every_pool_before_a_new_leader_has_published_all(client: Client) -> None:
    former = PublisherHarness(client)
    await publish_all(former, "a", "b")
    rounds = asyncio.create_task(former.publisher.run())
    await until(lambda: former.publisher.healthy)
    rounds.cancel()
    await asyncio.gather(rounds, return_exceptions=True)
    leader, never = PublisherHarness(client), asyncio.Event()
    leader.term = 4
    following = asyncio.create_task(leader.publisher.follow(never))
    try:
        async with full(client):
            await publish_all(leader, "b", "new")
            await until(lambda: gone(client, "a"))
        assert not following.done()
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
