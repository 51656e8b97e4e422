"""A Redis that is full (maxmemory, noeviction): whatever has left is removed at once, what joins waits (E5)."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from tests.support.lossy_redis import KEYS, make_document, stored
from tests.support.redis_fixture_lookup import claimed_writer, expect_picked
from tests.support.redis_fleet import RedisFleet, leading, redis_fleet, until

from hotpool.projection.documents import NodeDocument, PoolDocument, PoolServices
from hotpool.projection.redis_errors import RedisFullError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from hotpool.lookup import Lookup
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


async def test_a_changed_port_and_a_service_that_fails_a_pool_reach_a_full_redis(
    client: Client, lookup: Lookup
) -> None:
    writer = await claimed_writer(client)
    document = make_document("zh-en", {"edge-1": "ready"})
    document = replace(document, services=PoolServices(("asr",), filtered=True))
    await writer.replace_pool(document)
    await writer.replace_node(NodeDocument("edge-1", (), "asr|fw|6007||10.0.3.7"))
    async with full(client):
        await writer.replace_node(NodeDocument("edge-1", (), "asr|fw|6009||10.0.3.7"))
        assert expect_picked(await lookup.pick("zh-en")).url("asr") == "http://10.0.3.7:6009"
        failing = PoolServices(("asr",), filtered=True, exceptions={"edge-1": "-"})
        with pytest.raises(RedisFullError):  # raised although nothing is left to write
            await writer.replace_pool(replace(document, services=failing, former=document))
        assert expect_picked(await lookup.pick("zh-en")).endpoints == {}


def pool(number: int, *nodes: str) -> PoolDocument:
    return PoolDocument(f"p{number}", f"u{number}", None, None, frozenset(nodes), frozenset(), frozenset())


def set_all(fleet: RedisFleet, *nodes: str) -> None:
    for number in range(POOLS):
        fleet.set_pool(pool(number, *nodes))


async def gone(client: Client, node: str) -> bool:
    scores = [await client.zscore(KEYS.pool(f"p{number}")[1], node) for number in range(POOLS)]
    return not any(score is not None for score in scores)


async def test_a_dead_node_leaves_every_pool_while_each_pool_also_grows(client: Client) -> None:
    fleet = redis_fleet(client)
    set_all(fleet, "a", "b")
    async with leading(fleet):
        async with full(client):
            set_all(fleet, "b", "new")
            await until(lambda: gone(client, "a"))
            assert not fleet.healthy
        await until(lambda: fleet.healthy)
        assert await members(client, "p7") == {"b", "new"}


async def test_a_dead_node_leaves_every_pool_at_a_new_leader_while_each_pool_also_grows(client: Client) -> None:
    former = redis_fleet(client)
    set_all(former, "a", "b")
    async with leading(former):
        pass
    leader = redis_fleet(client, term=4)
    async with full(client):
        set_all(leader, "b", "new")
        task = asyncio.create_task(leader.run())
        await until(lambda: gone(client, "a"))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
