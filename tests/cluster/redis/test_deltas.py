"""Changes instead of whole documents: their size, their refusal, and the write that follows (E1, E2, E5)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

import pytest
from tests.support.lossy_redis import KEYS, NODES, LossyClient, make_document, pool_write_count, stored
from tests.support.redis_fixture_lookup import NO_DRIFT, claimed_writer

from hotpool.errors import RetryableError
from hotpool.projection.documents import PoolDocument
from hotpool.projection.functions import Functions
from hotpool.projection.redis_errors import RedisFullError

if TYPE_CHECKING:
    from hotpool.projection.connection.async_connection import Client

FACTS, READY, SUSPECT, DRAINING = KEYS.pool("zh-en")


def ready(*nodes: str, **more: Any) -> PoolDocument:
    return make_document("zh-en", dict.fromkeys(nodes, "ready"), **more)


async def held(client: Client) -> PoolDocument | None:
    return (await stored(client, "zh-en", atomic=False))[1]


def holds(found: PoolDocument | None, wanted: PoolDocument) -> bool:
    return found is not None and found.members == wanted.members


@pytest.mark.parametrize("size", [40, 2000])
async def test_a_small_change_is_sent_as_a_difference(client: Client, size: int) -> None:
    writer = await claimed_writer(client)
    names = [f"edge-{number:04}" for number in range(size)]
    first = ready(*names)
    await writer.replace_pool(first)
    second = make_document(
        "zh-en", {**dict.fromkeys(names[2:], "ready"), names[0]: "suspect", "new": "draining"}, former=first
    )
    before, sent = pool_write_count("change"), await sent_bytes(client)
    await writer.replace_pool(second)
    assert pool_write_count("change") == before + 1
    assert holds(await held(client), second)
    assert await sent_bytes(client) - sent < 2000
    assert await writer.check_drift({"zh-en": second}, {}) == NO_DRIFT


async def sent_bytes(client: Client) -> int:
    return int((await client.info("stats"))["total_net_input_bytes"])


@pytest.mark.parametrize(
    "second",
    [
        ready(*NODES[20:]),
        ready(*NODES, uid="u2"),
        PoolDocument("zh-en", "u1", None, None, frozenset(NODES), frozenset(), frozenset()),
        make_document("zh-en", dict.fromkeys(NODES, "suspect")),
    ],
)
async def test_a_large_change_or_another_pool_of_the_same_name_is_sent_whole(
    client: Client, second: PoolDocument
) -> None:
    writer = await claimed_writer(client)
    await writer.replace_pool(ready(*NODES))
    before = pool_write_count("whole")
    await writer.replace_pool(second)
    assert pool_write_count("whole") == before + 1
    assert holds(await held(client), second)
    assert await writer.check_drift({"zh-en": second}, {}) == NO_DRIFT


async def test_a_replica_without_the_base_refuses_a_change(client: Client) -> None:
    writer = await claimed_writer(client)
    await writer.replace_pool(ready(*NODES[:-1]))
    older = {name: await client.execute_command("DUMP", name) for name in await client.execute_command("KEYS", "*")}
    await writer.replace_pool(ready(*NODES[1:]))
    await client.flushall()
    for name, dump in older.items():
        await client.restore(name, 0, dump)
    last = ready(*NODES[1:-3], NODES[-1])  # removes members of both documents, so only the version differs
    await writer.replace_pool(last)
    assert holds(await held(client), last)


@pytest.mark.parametrize(
    "damage",
    [
        ("ZREM", READY, NODES[5]),
        ("ZREM", READY, NODES[0]),
        ("ZADD", READY, "1", "new"),
        ("ZADD", SUSPECT, "1", "new"),
        ("DEL", READY),
        ("HSET", FACTS, "digest", "x"),
        ("HINCRBY", FACTS, "version", "1"),
        ("HINCRBY", FACTS, "term", "-1"),
        ("DEL", FACTS),
    ],
)
async def test_a_change_detects_damage_and_the_whole_document_follows_at_once(
    client: Client, damage: tuple[str, ...]
) -> None:
    writer = await claimed_writer(client)
    await writer.replace_pool(ready(*NODES))
    await client.execute_command(*damage)
    last = ready(*NODES[1:], "new")
    try:
        await writer.replace_pool(last)
    except RetryableError:  # an unknown version, which the writer takes from the error
        await writer.replace_pool(last)
    assert holds(await held(client), last)


@pytest.mark.parametrize("fault", ["lost", "never", "late"])
async def test_after_an_unknown_outcome_the_whole_document_is_sent_and_the_late_write_is_refused(
    client: Client, fault: str
) -> None:
    async def do_nothing() -> None:
        pass

    lossy = LossyClient(client, do_nothing)
    writer = await claimed_writer(cast("Client", lossy))
    await writer.replace_pool(ready(*NODES))
    lossy.fault = fault
    with pytest.raises(RetryableError):
        await writer.replace_pool(ready(*NODES[1:]))
    before = pool_write_count("whole")
    await writer.replace_pool(ready(*NODES[2:]))
    assert pool_write_count("whole") == before + 1
    await lossy.deliver()
    assert holds(await held(client), ready(*NODES[2:]))


async def test_a_change_overtaken_by_a_later_write_does_not_restore_an_older_document(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = await claimed_writer(client)
    first, second, third = (ready(*NODES[number:]) for number in range(3))
    await writer.replace_pool(first)
    started, overtook, send = asyncio.Event(), asyncio.Event(), Functions.call

    async def delayed_call(self: Functions, name: str, *words: Any) -> Any:
        if name == "exchange":
            started.set()
            await overtook.wait()
        return await send(self, name, *words)

    monkeypatch.setattr(Functions, "call", delayed_call)
    overtaken = asyncio.create_task(writer.replace_pool(second))
    await started.wait()
    await writer.replace_pool(third)
    overtook.set()
    await overtaken
    assert holds(await held(client), third)
    assert await writer.check_drift({"zh-en": third}, {}) == NO_DRIFT


async def test_a_new_leader_sends_changes_after_its_first_drift_check(client: Client) -> None:
    first = ready(*NODES)
    await (await claimed_writer(client, 3)).replace_pool(first)
    successor = await claimed_writer(client, 4)
    assert await successor.check_drift({"zh-en": first}, {}) == NO_DRIFT
    before = pool_write_count("change")
    await successor.replace_pool(ready(*NODES[1:]))
    assert pool_write_count("change") == before + 1
    assert holds(await held(client), ready(*NODES[1:]))


async def test_a_full_redis_removes_departed_members_and_later_gets_the_rest(client: Client) -> None:
    writer = await claimed_writer(client)
    former = ready(*NODES)
    await writer.replace_pool(former)
    await client.config_set("maxmemory-policy", "noeviction")
    await client.config_set("maxmemory", "1mb")
    try:
        wanted = ready(*NODES[1:], "new-1", "new-2", former=former)
        for _ in range(2):  # a refusal keeps the base of the next change
            with pytest.raises(RedisFullError):
                await writer.replace_pool(wanted)
            assert holds(await held(client), ready(*NODES[1:]))
        with pytest.raises(RedisFullError):
            await writer.replace_pool(ready(*NODES[2:], "new-1", "new-2"))
        assert holds(await held(client), ready(*NODES[2:]))
        await writer.replace_pool(ready(*NODES[3:]))
        assert holds(await held(client), ready(*NODES[3:]))
        assert await writer.claim(3) == 3
        await writer.stamp(complete=False)
    finally:
        await client.config_set("maxmemory", "0")
    await writer.replace_pool(wanted)
    assert await writer.check_drift({"zh-en": wanted}, {}) == NO_DRIFT
