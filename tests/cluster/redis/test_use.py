"""Use of a fleet as the leader reads it from a real server (E9): slots in use, and refused reservations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tests.support.capacity_fleet import SLOT_ENTRIES, SLOT_EXPIRIES, SLOTS, asr, write_fleet
from tests.support.leadership import FixedLeadership
from tests.support.redis_fixture_lookup import expect_picked, names, pool, reason_of

from hotpool.lookup import Lookup, Reason
from hotpool.projection.use import Use
from hotpool.projection.writer import RedisWriter

if TYPE_CHECKING:
    from hotpool.projection.connection.async_connection import Client


async def use(writer: RedisWriter) -> Use:
    """Return what the leader reads with its stamp."""
    return await writer.stamp(complete=True)


async def test_slots_in_use_and_refused_reservations_are_read_with_the_stamp(client: Client, lookup: Lookup) -> None:
    writer = await write_fleet(client, {"a": asr(1), "b": asr(2)})
    await writer.replace_pool(pool(name="none"))
    held = [expect_picked(await lookup.pick("zh-en", reserve=60)) for _ in range(3)]
    full = [reason_of(await lookup.pick("zh-en", reserve=60)) for _ in range(4)]
    full.append(reason_of(await lookup.pick("zh-en", strategy="least-loaded", reserve=60)))
    assert full == [Reason.FULL] * 5, "looked at and remembered"
    expect_picked(await lookup.pick("zh-en"))
    reasons: list[tuple[str, dict[str, Any]]] = [
        ("zh-en", {"exclude": ["a", "b"]}),
        ("zh-en", {"types": ["tts"]}),
        ("none", {}),
        ("none", {}),
        ("unknown", {}),
    ]
    for name, options in reasons:
        await lookup.pick(name, reserve=60, **options)
        await lookup.pick(name, **options)  # no reservation
    expected = {
        ("zh-en", "Full"): 5,
        ("zh-en", "AllExcluded"): 1,
        ("zh-en", "NoEndpoint"): 1,
        ("none", "Empty"): 2,
    }
    assert await use(writer) == Use({"a": {"fw": 1}, "b": {"fw": 2}}, expected)
    for one in held:
        assert one.reservation is not None
        await lookup.release(one.reservation)
    assert await use(writer) == Use({}, {})


async def test_a_refusal_is_counted_once_by_the_leader_that_reads_it_first(client: Client, lookup: Lookup) -> None:
    former = await write_fleet(client, {"a": asr(1)})
    other = RedisWriter(client, FixedLeadership(), namespace="other")
    assert await other.claim(3) == 3
    for _ in range(2):
        await lookup.pick("zh-en", reserve=60)
    assert await use(other) == Use({}, {})
    leader = RedisWriter(client, FixedLeadership(), namespace="speech")
    assert await leader.claim(4) == 4
    with pytest.raises(Exception, match="term"):
        await use(former)
    assert (await use(leader)).refused == {("zh-en", "Full"): 1}


async def test_the_slots_of_many_nodes_are_read_page_by_page(client: Client) -> None:
    nodes = names(700)
    writer = await write_fleet(client, {"a": asr(1)})
    await client.execute_command("HSET", SLOTS, *(word for name in nodes for word in (f"{name} fw", "2")))
    await client.execute_command("HSET", SLOT_ENTRIES, "one", "a none")  # the keys of slots must agree
    await client.execute_command("ZADD", SLOT_EXPIRIES, 4e12, "one")
    assert (await use(writer)).slots == {name: {"fw": 2} for name in nodes}
    await client.execute_command("SET", SLOTS, "damaged")
    assert (await use(writer)).slots == {}
