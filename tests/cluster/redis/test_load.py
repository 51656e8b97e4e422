"""Reservations, load reports and the least-loaded pick on a real server (E6)."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from tests.support.redis_fixture_lookup import (
    EXPIRIES,
    KEYS,
    chi_square,
    claimed_writer,
    expect_picked,
    load_key_sizes,
    names,
    node_loads,
    node_of,
    pool,
    reserve,
)

from hotpool.lookup import Lookup, Reservation
from hotpool.projection.functions import LIBRARY
from hotpool.projection.keys import score

if TYPE_CHECKING:
    from hotpool.projection.connection.async_connection import Client
    from hotpool.projection.writer import RedisWriter

CHI_SQUARE_199 = 267.5  # 199 degrees of freedom, one in a thousand.
CHI_SQUARE_9 = 27.88


@pytest.fixture
async def writer(client: Client) -> RedisWriter:
    return await claimed_writer(client)


async def expire(client: Client, reservation: Reservation) -> None:
    """Let a reservation expire without waiting."""
    await client.execute_command("ZADD", EXPIRIES, "XX", "CH", 1, reservation.id)


async def test_three_reservations_on_three_members_take_one_each(
    client: Client, writer: RedisWriter, lookup: Lookup
) -> None:
    await writer.replace_pool(pool(names(3), ["s"]))
    made = [await reserve(lookup) for _ in range(3)]
    assert {one.node for one in made} == names(3)
    assert len({one.id for one in made}) == 3
    assert await node_loads(client) == dict.fromkeys(names(3), 1)
    assert {(await reserve(lookup)).node for _ in range(3)} == names(3)


async def test_concurrent_reservations_spread_evenly(client: Client, writer: RedisWriter, lookup: Lookup) -> None:
    await writer.replace_pool(pool(names(20)))
    await asyncio.gather(*(reserve(lookup) for _ in range(100)))
    assert await node_loads(client) == dict.fromkeys(names(20), 5)


async def test_the_least_loaded_of_64_random_members_keeps_loads_even_in_a_large_pool(
    client: Client, writer: RedisWriter, lookup: Lookup
) -> None:
    await writer.replace_pool(pool(names(400)))
    for _ in range(1200):
        await reserve(lookup)
    found = await node_loads(client)
    assert found.keys() == names(400)
    assert max(found.values()) - min(found.values()) <= 3


async def test_equal_nodes_have_equal_chances_also_where_only_64_are_compared(
    client: Client, writer: RedisWriter
) -> None:
    chance = random.Random(20261127).random  # noqa: S311 - a fixed seed.
    lookup = Lookup(client, namespace="speech", chance=chance)
    await writer.replace_pool(pool(names(200)))
    answers = [await lookup.pick("zh-en", strategy="least-loaded") for _ in range(3000)]
    counts = Counter(map(node_of, answers))
    assert counts.keys() == names(200)
    assert chi_square(counts.values()) < CHI_SQUARE_199
    excluded = sorted(names(200))[10:]
    answers = [await lookup.pick("zh-en", strategy="least-loaded", exclude=excluded) for _ in range(500)]
    counts = Counter(map(node_of, answers))
    assert counts.keys() == names(200) - set(excluded)
    assert chi_square(counts.values()) < CHI_SQUARE_9


async def test_unloaded_neighbours_on_the_ring_have_equal_chances(
    client: Client, writer: RedisWriter, lookup: Lookup
) -> None:
    await writer.replace_pool(pool(names(10)))
    unloaded = sorted(names(10), key=score)[4:6]
    await lookup.report_load(dict.fromkeys(names(10) - set(unloaded), 1), source="a", seconds=60)
    chances = iter([(place + 0.5) / 400 for place in range(400)])
    sweeping = Lookup(client, namespace="speech", chance=lambda: next(chances))
    answers = [await sweeping.pick("zh-en", strategy="least-loaded") for _ in range(400)]
    assert Counter(map(node_of, answers)) == dict.fromkeys(unloaded, 200)


async def test_a_loaded_node_is_avoided_until_the_others_are_as_loaded(
    client: Client, writer: RedisWriter, lookup: Lookup
) -> None:
    await writer.replace_pool(pool(names(3)))
    await lookup.report_load({"edge-0": 2.5, "edge-1": 0.5}, source="a", seconds=60)
    assert [(await reserve(lookup)).node for _ in range(2)] == ["edge-2", "edge-1"]
    assert (await reserve(lookup)).node == "edge-2"
    assert await node_loads(client) == {"edge-0": 2.5, "edge-1": 1.5, "edge-2": 2}
    answers = [await lookup.pick("zh-en", strategy="least-loaded", exclude=["edge-1"]) for _ in range(5)]
    assert set(map(node_of, answers)) == {"edge-2"}


async def test_a_load_belongs_to_the_node_and_counts_in_every_pool(writer: RedisWriter, lookup: Lookup) -> None:
    await writer.replace_pool(pool(names(2)))
    await writer.replace_pool(pool(names(2), name="en-zh"))
    first = await reserve(lookup)
    other = node_of(await lookup.pick("en-zh", strategy="least-loaded"))
    assert {first.node, other} == names(2)


async def test_a_suspect_node_without_load_is_picked_after_a_loaded_ready_one(
    writer: RedisWriter, lookup: Lookup
) -> None:
    await writer.replace_pool(pool(["a"], ["s"], ["d"]))
    assert [(await reserve(lookup)).node for _ in range(3)] == ["a", "a", "a"]
    assert node_of(await lookup.pick("zh-en", strategy="least-loaded", exclude=["a"])) == "s"


@pytest.mark.parametrize("options", [{}, {"strategy": "least-loaded"}, {"key": "user-1"}])
async def test_every_strategy_can_reserve_and_returns_the_reservation(
    client: Client, writer: RedisWriter, lookup: Lookup, options: dict[str, str]
) -> None:
    await writer.replace_pool(pool(names(9)))
    seconds, micros = await client.execute_command("TIME")
    answer = expect_picked(await lookup.pick("zh-en", reserve=30, weight=2.5, **options))  # type: ignore[arg-type]
    assert answer.reservation is not None
    assert answer.reservation.node == answer.node
    assert 30 <= answer.reservation.expires - (int(seconds) + int(micros) / 1e6) + 0.001 < 40
    assert await node_loads(client) == {answer.node: 2.5}
    assert expect_picked(await lookup.pick("zh-en", **options)).reservation is None  # type: ignore[arg-type]
    assert await node_loads(client) == {answer.node: 2.5}


async def test_a_release_subtracts_the_load_once(client: Client, writer: RedisWriter, lookup: Lookup) -> None:
    await writer.replace_pool(pool(["a"]))
    first, second = await reserve(lookup), await reserve(lookup)
    assert await lookup.release(first)
    assert await node_loads(client) == {"a": 1}
    assert not await lookup.release(first)
    assert not await lookup.release("unknown")
    assert await node_loads(client) == {"a": 1}
    assert await lookup.release(second.id)
    assert await load_key_sizes(client) == (0, 0, 0)


async def test_a_reservation_expires_and_a_renewed_one_does_not(
    client: Client, writer: RedisWriter, lookup: Lookup
) -> None:
    await writer.replace_pool(pool(["a", "b"]))
    lost, kept = await reserve(lookup), await reserve(lookup)
    renewed = await lookup.renew(kept, 300)
    assert renewed is not None
    assert (renewed.id, renewed.node) == (kept.id, kept.node)
    assert 230 < renewed.expires - kept.expires < 250
    await expire(client, lost)
    assert await lookup.renew(lost.id, 60) is None
    assert not await lookup.release(lost)
    assert await node_loads(client) == {kept.node: 1}
    assert await lookup.renew("unknown", 60) is None
    assert (await reserve(lookup)).node == lost.node


async def test_a_reservation_of_one_millisecond_expires(client: Client, writer: RedisWriter, lookup: Lookup) -> None:
    await writer.replace_pool(pool(["a"]))
    await reserve(lookup, 0.001)
    async with asyncio.timeout(10):
        while await load_key_sizes(client) != (0, 0, 0):
            await lookup.release("unknown")


async def test_each_write_and_each_stamp_purges_up_to_a_hundred_expired_loads(
    client: Client, writer: RedisWriter, lookup: Lookup
) -> None:
    await writer.replace_pool(pool(["a"]))
    await lookup.report_load({f"node-{number}": 1 for number in range(250)}, source="a", seconds=60)
    for number in range(250):
        await client.execute_command("ZADD", EXPIRIES, 1, f"report:a:node-{number}")
    await lookup.pick("zh-en", strategy="least-loaded")
    assert await load_key_sizes(client) == (250, 250, 250)
    await lookup.release("unknown")
    assert await load_key_sizes(client) == (150, 150, 150)
    await writer.stamp(complete=True)
    assert await load_key_sizes(client) == (50, 50, 50)
    made = await reserve(lookup)
    assert await node_loads(client) == {"a": 1}
    assert await lookup.release(made)


async def test_an_expired_load_is_unknown_even_before_it_is_purged(
    client: Client, writer: RedisWriter, lookup: Lookup
) -> None:
    await writer.replace_pool(pool(["a"]))
    await lookup.report_load({f"node-{number}": 1 for number in range(350)}, source="a", seconds=60)
    for number in range(350):
        await client.execute_command("ZADD", EXPIRIES, number + 1, f"report:a:node-{number}")
    assert not await lookup.release("report:a:node-349")
    assert await lookup.renew("report:a:node-348", 60) is None
    assert await load_key_sizes(client) == (148, 148, 148)


async def test_a_report_replaces_its_sources_former_one_and_adds_to_others(
    client: Client, lookup: Lookup, writer: RedisWriter
) -> None:
    await writer.stamp(complete=True)
    await lookup.report_load({"a": 3, "b": 1}, source="one", seconds=60)
    await lookup.report_load({"a": 0.25}, source="two", seconds=60)
    assert await node_loads(client) == {"a": 3.25, "b": 1}
    await lookup.report_load({"a": 1}, source="one", seconds=60)
    assert await node_loads(client) == {"a": 1.25, "b": 1}
    await lookup.report_load({"a": 0, "b": 0, "c": 0}, source="one", seconds=60)
    assert await node_loads(client) == {"a": 0.25}
    await client.execute_command("ZADD", EXPIRIES, 1, "report:two:a")
    await lookup.report_load({}, source="one", seconds=60)
    assert await load_key_sizes(client) == (0, 0, 0)


async def test_inexact_weights_leave_no_residue(client: Client, writer: RedisWriter, lookup: Lookup) -> None:
    await writer.replace_pool(pool(["a"]))
    made = [
        expect_picked(await lookup.pick("zh-en", reserve=60, weight=0.1 * number)).reservation
        for number in range(1, 30)
    ]
    for one in made:
        assert one is not None
        assert await lookup.release(one)
    assert await load_key_sizes(client) == (0, 0, 0)


async def test_a_reservation_resent_after_a_lost_reply_counts_once(client: Client, writer: RedisWriter) -> None:
    await writer.replace_pool(pool(names(5)))
    keys = (KEYS.meta, *KEYS.pool("zh-en")[:3], KEYS.endpoints, KEYS.services("zh-en"), *KEYS.load)
    words = ("FCALL", f"{LIBRARY}_reserve", 9, *keys, "some-id", 1, 60_000, "uniform", "0.3")
    nodes = [(await client.execute_command(*words)).decode().split()[0] for _ in range(2)]
    assert nodes[0] == nodes[1]
    assert await node_loads(client) == {nodes[0]: 1}
