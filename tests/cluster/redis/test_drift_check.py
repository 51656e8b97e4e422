"""The drift check against a real server: all damage is found and repaired, and nothing else is written (D11, E1)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from tests.support.leadership import FixedLeadership
from tests.support.redis_fixture_lookup import NO_DRIFT, claimed_writer

from hotpool.projection import drift_check
from hotpool.projection.documents import NodeDocument, PoolDocument
from hotpool.projection.functions import FORMER_LIBRARY, LIBRARY
from hotpool.projection.keys import FleetKeys
from hotpool.projection.redis_errors import TermNotClaimedError
from hotpool.projection.writer import RedisWriter

if TYPE_CHECKING:
    from hotpool.projection.connection.async_connection import Client
    from hotpool.projection.drift_check import DriftReport
    from localfleet.redis_server import RedisServer

KEYS = FleetKeys("hotpool", "speech")
FACTS, READY, SUSPECT, DRAINING = KEYS.pool("zh-en")


def pool(name: str, size: int = 10) -> PoolDocument:
    names = [f"edge-{number}" for number in range(size)]
    return PoolDocument(
        name, f"uid-{name}", "speech", name, frozenset(names[2:]), frozenset(names[1:2]), frozenset(names[:1])
    )


POOLS = {name: pool(name) for name in ("zh-en", "en-zh")} | {"large": pool("large", 1200)}
NODES = {name: NodeDocument(name, (("asr", True, None, ("fw",)),)) for name in ("edge-1", "edge-2")}

DAMAGE: dict[str, list[tuple[str, ...]]] = {
    "a member taken": [("ZREM", READY, "edge-5")],
    "a member added": [("ZADD", DRAINING, "1", "foreign")],
    "a member replaced": [("ZREM", READY, "edge-5"), ("ZADD", READY, "1", "foreign")],
    "a set gone": [("DEL", SUSPECT)],
    "a set of another type": [("SET", READY, "x")],
    "facts gone": [("DEL", FACTS)],
    "facts of another type": [("SET", FACTS, "x")],
    "stated count": [("HSET", FACTS, "ready", "9000")],
    "digest": [("HSET", FACTS, "digest", "x")],
    "uid": [("HSET", FACTS, "uid", "x")],
    "newer version": [("HINCRBY", FACTS, "version", "5")],
    "older version": [("HSET", FACTS, "version", "0")],
    "invalid version": [("HSET", FACTS, "version", "nan")],
    "older term": [("HSET", FACTS, "term", "2")],
    "newer term": [("HSET", FACTS, "term", "99")],
    "not in the set of pools": [("SREM", KEYS.pools, "zh-en")],
    "not in the index": [("HDEL", KEYS.index, "speech/zh-en")],
    "another in the index": [("HSET", KEYS.index, "speech/zh-en", "en-zh")],
}
NODE_DAMAGE: dict[str, list[tuple[str, ...]]] = {
    "gone": [("DEL", KEYS.node("edge-1"))],
    "another type": [("SET", KEYS.node("edge-1"), "x")],
    "a field added": [("HSET", KEYS.node("edge-1"), "llm", "{}")],
    "a field gone": [("HDEL", KEYS.node("edge-1"), "asr")],
    "a field changed": [("HSET", KEYS.node("edge-1"), "asr", "{}")],
    "facts": [("HSET", KEYS.node("edge-1"), ".facts", "3 1")],
    "older version": [("HSET", KEYS.node("edge-1"), ".facts", f"3 0 {NODES['edge-1'].digest}")],
    "not in the set of nodes": [("SREM", KEYS.nodes, "edge-1")],
}
EVERYWHERE: dict[str, list[tuple[str, ...]]] = {
    "flush": [("FLUSHALL",)],
    "flush with functions": [("FLUSHALL",), ("FUNCTION", "FLUSH")],
    "sets of another type": [("DEL", KEYS.pools, KEYS.nodes), ("SET", KEYS.pools, "x"), ("SET", KEYS.nodes, "x")],
}
WRITING = {"hset", "hdel", "sadd", "srem", "zadd", "zrem"} | {
    "unlink",
    "del",
    "rename",
    "persist",
    "pexpire",
    "set",
    "function|load",
}


@pytest.fixture
async def writer(client: Client) -> RedisWriter:
    writer = await claimed_writer(client)
    for document in POOLS.values():
        await writer.replace_pool(document)
    for node in NODES.values():
        await writer.replace_node(node)
    await writer.stamp(complete=True)
    assert await writer.check_drift(POOLS, NODES) == NO_DRIFT
    return writer


async def repair(writer: RedisWriter, drift: DriftReport) -> None:
    """Write what differs, as the operator does."""
    if not drift.claimed:
        await writer.claim(3)
    for name in drift.pools:
        await writer.replace_pool(POOLS[name])
    for name in drift.stray_pools:
        await writer.drop_pool(name)
    await writer.drop_index(drift.stray_index)
    for name in drift.nodes:
        await writer.replace_node(NODES[name])
    for name in drift.stray_nodes:
        await writer.drop_node(name)


async def damage(client: Client, commands: list[tuple[str, ...]]) -> None:
    for command in commands:
        if command[0] == "SET":
            await client.execute_command("DEL", command[1])
        await client.execute_command(*command)


async def contents(client: Client) -> dict[bytes, object]:
    """Return members of every pool and fields of every node, by key."""
    sets = [key for name in POOLS for key in KEYS.pool(name)[1:]]
    values: dict[bytes, object] = {key.encode(): await client.execute_command("ZRANGE", key, 0, -1) for key in sets}
    for name in NODES:
        fields = await client.execute_command("HGETALL", KEYS.node(name))
        values[name.encode()] = {field: value for field, value in fields.items() if field != b".facts"}
    values[b"index"] = await client.execute_command("HGETALL", KEYS.index)
    values[b"names"] = [sorted(await client.execute_command("SMEMBERS", key)) for key in (KEYS.pools, KEYS.nodes)]
    return values


@pytest.mark.parametrize("kind", DAMAGE)
async def test_damage_to_a_pool_is_found_and_only_that_pool_written(
    client: Client, writer: RedisWriter, kind: str
) -> None:
    before = await contents(client)
    await damage(client, DAMAGE[kind])
    drift = await writer.check_drift(POOLS, NODES)
    assert drift.pools == {"zh-en"}
    assert drift.claimed
    assert drift.stray_pools | drift.nodes | drift.stray_nodes == set()
    await repair(writer, drift)
    assert await writer.check_drift(POOLS, NODES) == NO_DRIFT
    assert await contents(client) == before


async def test_a_replaced_member_is_found_in_a_pool_that_is_read_in_parts(
    client: Client, writer: RedisWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drift_check, "RANKS_PER_CALL", 100)
    assert await writer.check_drift(POOLS, NODES) == NO_DRIFT
    (last,) = await client.execute_command("ZRANGE", KEYS.pool("large")[1], -1, -1)
    await client.execute_command("ZREM", KEYS.pool("large")[1], last)
    await client.execute_command("ZADD", KEYS.pool("large")[1], "inf", "foreign")
    drift = await writer.check_drift(POOLS, NODES)
    assert drift.pools == {"large"}
    await repair(writer, drift)
    assert await writer.check_drift(POOLS, NODES) == NO_DRIFT


@pytest.mark.parametrize("kind", NODE_DAMAGE)
async def test_damage_to_a_node_is_found_and_only_that_node_written(
    client: Client, writer: RedisWriter, kind: str
) -> None:
    before = await contents(client)
    await damage(client, NODE_DAMAGE[kind])
    drift = await writer.check_drift(POOLS, NODES)
    assert drift.nodes == {"edge-1"}
    assert drift.pools | drift.stray_pools | drift.stray_nodes == set()
    await repair(writer, drift)
    assert await writer.check_drift(POOLS, NODES) == NO_DRIFT
    assert await contents(client) == before


@pytest.mark.parametrize("kind", EVERYWHERE)
async def test_damage_to_all_is_found_and_repaired(client: Client, writer: RedisWriter, kind: str) -> None:
    before = await contents(client)
    await damage(client, EVERYWHERE[kind])
    drift = await writer.check_drift(POOLS, NODES)
    assert drift.pools == POOLS.keys()
    assert drift.nodes == NODES.keys()
    await repair(writer, drift)
    assert await writer.check_drift(POOLS, NODES) == NO_DRIFT
    assert await contents(client) == before


async def test_a_restart_with_an_empty_server_is_found_and_repaired(
    server: RedisServer, client: Client, writer: RedisWriter
) -> None:
    before = await contents(client)
    await asyncio.to_thread(server.restart)  # The event loop must run, so the client notices the closed connection.
    drift = await writer.check_drift(POOLS, NODES)
    assert not drift.claimed
    with pytest.raises(TermNotClaimedError):
        await writer.stamp(complete=True)
    await repair(writer, drift)
    assert await writer.check_drift(POOLS, NODES) == NO_DRIFT
    assert await contents(client) == before


@pytest.mark.parametrize(
    "change", [("FUNCTION", "FLUSH"), ("FUNCTION", "DELETE", LIBRARY), ("FUNCTION", "DELETE", FORMER_LIBRARY)]
)
async def test_a_lost_library_is_loaded_by_the_drift_check(
    client: Client, writer: RedisWriter, change: tuple[str, ...]
) -> None:
    await client.execute_command(*change)
    assert await writer.check_drift(POOLS, NODES) == NO_DRIFT
    assert await writer.check_drift(POOLS, NODES) == NO_DRIFT


async def test_another_library_with_our_name_is_replaced_by_the_drift_check(
    client: Client, writer: RedisWriter
) -> None:
    answer = "local function overview() return { 'another', '3', {}, {}, {} } end"
    register = (
        f"redis.register_function{{function_name='{LIBRARY}_overview', callback=overview, flags={{'no-writes'}}}}"
    )
    foreign = f"#!lua name={LIBRARY}\n{answer}\n{register}"
    await client.execute_command("FUNCTION LOAD", "REPLACE", foreign)
    assert await writer.check_drift(POOLS, NODES) == NO_DRIFT


async def test_stray_pools_nodes_and_index_fields_are_found_and_deleted(client: Client, writer: RedisWriter) -> None:
    await client.execute_command("HSET", KEYS.index, "speech/none", "zh-en")
    without = {name: document for name, document in POOLS.items() if name != "zh-en"}
    drift = await writer.check_drift(without, {"edge-2": NODES["edge-2"]})
    assert drift.stray_pools == {"zh-en"}
    assert drift.stray_nodes == {"edge-1"}
    assert drift.stray_index == {"speech/zh-en", "speech/none"}
    assert drift.pools | drift.nodes == set()
    await repair(writer, drift)
    assert await writer.check_drift(without, {"edge-2": NODES["edge-2"]}) == NO_DRIFT
    assert await client.execute_command("EXISTS", *KEYS.pool("zh-en"), KEYS.node("edge-1")) == 0


async def test_a_changed_document_differs_until_it_is_written(writer: RedisWriter) -> None:
    changed = POOLS | {"zh-en": pool("zh-en", 11)}
    assert (await writer.check_drift(changed, NODES)).pools == {"zh-en"}
    await writer.replace_pool(changed["zh-en"])
    assert await writer.check_drift(changed, NODES) == NO_DRIFT


async def test_a_restarted_operator_accepts_the_stored_projection_and_writes_only_claim_and_stamp(
    client: Client, writer: RedisWriter
) -> None:
    assert await client.execute_command("HGET", KEYS.meta, "term") == b"3"
    assert writer is not None
    await client.execute_command("CONFIG", "RESETSTAT")
    dumps = await keyspace(client)
    restarted = RedisWriter(client, FixedLeadership(), namespace="speech")
    await restarted.claim(4)
    assert await restarted.check_drift(POOLS, NODES) == NO_DRIFT
    await restarted.stamp(complete=True)
    assert await keyspace(client) == dumps
    written = {name for name in await commands_run(client) if name in WRITING}
    assert written == {"hset"}


async def test_a_restarted_operators_first_write_has_a_higher_version(client: Client, writer: RedisWriter) -> None:
    assert writer is not None
    before = int(await client.execute_command("HGET", FACTS, "version"))
    restarted = RedisWriter(client, FixedLeadership(), namespace="speech")
    await restarted.claim(4)
    await restarted.check_drift(POOLS, NODES)
    await restarted.replace_pool(POOLS["zh-en"])
    assert int(await client.execute_command("HGET", FACTS, "version")) > before
    assert await restarted.check_drift(POOLS, NODES) == NO_DRIFT


async def commands_run(client: Client) -> set[str]:
    stats = await client.execute_command("INFO", "commandstats")
    return {name.removeprefix("cmdstat_") for name in stats}


async def keyspace(client: Client) -> dict[bytes, bytes]:
    names = await client.execute_command("KEYS", "*")
    return {name: await client.execute_command("DUMP", name) for name in names if name != KEYS.meta.encode()}
