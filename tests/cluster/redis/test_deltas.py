"""Changes instead of whole images: what is sent, what refuses them, and what follows then (E1, E2, E5)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

import pytest
from tests.support.lossy_redis import KEYS, NODES, Line, counted, image, stored
from tests.support.redis_fixture_lookup import claimed

from hotpool.errors import RetryableError
from hotpool.projection.documents import PoolDocument
from hotpool.projection.functions import Functions
from hotpool.projection.redis_errors import RedisFullError

if TYPE_CHECKING:
    from hotpool.projection.connection.async_connection import Client

FACTS, READY, SUSPECT, DRAINING = KEYS.pool("zh-en")


def ready(*nodes: str, **more: Any) -> PoolDocument:
    return image("zh-en", dict.fromkeys(nodes, "ready"), **more)


async def held(client: Client) -> PoolDocument | None:
    return (await stored(client, "zh-en", at_once=False))[1]


def holds(found: PoolDocument | None, wanted: PoolDocument) -> bool:
    return found is not None and found.members == wanted.members


@pytest.mark.parametrize("size", [40, 2000])
async def test_of_a_small_change_only_what_changed_is_sent(client: Client, size: int) -> None:
    writer = await claimed(client)
    names = [f"edge-{number:04}" for number in range(size)]
    first = ready(*names)
    await writer.replace_pool(first)
    second = image("zh-en", {**dict.fromkeys(names[2:], "ready"), names[0]: "suspect", "new": "draining"}, former=first)
    before, sent = counted("change"), await sent_bytes(client)
    await writer.replace_pool(second)
    assert counted("change") == before + 1
    assert holds(await held(client), second)
    assert await sent_bytes(client) - sent < 2000
    assert (await writer.check_drift({"zh-en": second}, {})).clean


async def sent_bytes(client: Client) -> int:
    return int((await client.info("stats"))["total_net_input_bytes"])


@pytest.mark.parametrize(
    "second",
    [
        ready(*NODES[20:]),
        ready(*NODES, uid="u2"),
        PoolDocument("zh-en", "u1", None, None, frozenset(NODES), frozenset(), frozenset()),
        image("zh-en", dict.fromkeys(NODES, "suspect")),
    ],
)
async def test_a_large_change_or_another_pool_of_the_name_is_sent_whole(client: Client, second: PoolDocument) -> None:
    writer = await claimed(client)
    await writer.replace_pool(ready(*NODES))
    before = counted("whole")
    await writer.replace_pool(second)
    assert counted("whole") == before + 1
    assert holds(await held(client), second)
    assert (await writer.check_drift({"zh-en": second}, {})).clean


async def test_a_change_is_refused_by_a_replica_that_missed_what_it_builds_on(client: Client) -> None:
    writer = await claimed(client)
    await writer.replace_pool(ready(*NODES[:-1]))
    older = {name: await client.execute_command("DUMP", name) for name in await client.execute_command("KEYS", "*")}
    await writer.replace_pool(ready(*NODES[1:]))
    await client.flushall()
    for name, dump in older.items():
        await client.restore(name, 0, dump)
    last = ready(*NODES[1:-3], NODES[-1])  # leaves who is in both, so that nothing but the version tells
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
async def test_a_change_finds_damage_and_the_whole_image_follows_at_once(
    client: Client, damage: tuple[str, ...]
) -> None:
    writer = await claimed(client)
    await writer.replace_pool(ready(*NODES))
    await client.execute_command(*damage)
    last = ready(*NODES[1:], "new")
    try:
        await writer.replace_pool(last)
    except RetryableError:  # a version from nowhere: known from now on
        await writer.replace_pool(last)
    assert holds(await held(client), last)


@pytest.mark.parametrize("fault", ["lost", "never", "late"])
async def test_after_an_unknown_outcome_the_whole_image_is_sent_and_the_late_one_is_refused(
    client: Client, fault: str
) -> None:
    async def nobody() -> None:
        pass

    line = Line(client, nobody)
    writer = await claimed(cast("Client", line))
    await writer.replace_pool(ready(*NODES))
    line.fault = fault
    with pytest.raises(RetryableError):
        await writer.replace_pool(ready(*NODES[1:]))
    before = counted("whole")
    await writer.replace_pool(ready(*NODES[2:]))
    assert counted("whole") == before + 1
    await line.deliver()
    assert holds(await held(client), ready(*NODES[2:]))


async def test_a_change_that_a_later_write_passed_puts_no_older_image_in_its_place(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = await claimed(client)
    first, second, third = (ready(*NODES[number:]) for number in range(3))
    await writer.replace_pool(first)
    begun, passed, send = asyncio.Event(), asyncio.Event(), Functions.call

    async def held_up(self: Functions, name: str, *words: Any) -> Any:
        if name == "exchange":
            begun.set()
            await passed.wait()
        return await send(self, name, *words)

    monkeypatch.setattr(Functions, "call", held_up)
    overtaken = asyncio.create_task(writer.replace_pool(second))
    await begun.wait()
    await writer.replace_pool(third)
    passed.set()
    await overtaken
    assert holds(await held(client), third)
    assert (await writer.check_drift({"zh-en": third}, {})).clean


async def test_a_new_leader_goes_on_with_changes_after_its_first_audit(client: Client) -> None:
    first = ready(*NODES)
    await (await claimed(client, 3)).replace_pool(first)
    successor = await claimed(client, 4)
    assert (await successor.check_drift({"zh-en": first}, {})).clean
    before = counted("change")
    await successor.replace_pool(ready(*NODES[1:]))
    assert counted("change") == before + 1
    assert holds(await held(client), ready(*NODES[1:]))


async def test_a_full_redis_loses_at_least_who_left_and_the_rest_follows(client: Client) -> None:
    writer = await claimed(client)
    former = ready(*NODES)
    await writer.replace_pool(former)
    await client.config_set("maxmemory-policy", "noeviction")
    await client.config_set("maxmemory", "1mb")
    try:
        wanted = ready(*NODES[1:], "new-1", "new-2", former=former)
        for _ in range(2):  # what it knows of Redis survives a refusal
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
    assert (await writer.check_drift({"zh-en": wanted}, {})).clean
