"""The reservations of a node, and since when they are complete, on a real server (requirement C5)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from tests.support.leadership import FixedLeadership
from tests.support.redis_fixture_lookup import (
    ENTRIES,
    EXPIRIES,
    LOAD,
    claimed_writer,
    load_key_sizes,
    names,
    pool,
    reserve,
)
from tests.support.redis_fleet import RedisFleet, holds, leading, pool_of, redis_fleet
from tests.support.redis_page import OPERATOR, acl_rules

from hotpool.projection.connection.async_connection import connect
from hotpool.projection.functions import library_source
from hotpool.projection.writer import RedisWriter

if TYPE_CHECKING:
    from hotpool.lookup import Lookup
    from hotpool.projection.connection.async_connection import Client
    from localfleet.redis_server import RedisServer

NODES = sorted(names(3))


@pytest.fixture
async def writer(client: Client) -> RedisWriter:
    return await claimed_writer(client)


async def aged(writer: RedisWriter) -> float:
    """Wait until the ledger has an age, by the clock of Redis; return it."""
    while not (age := (await writer.read_ledger(0, [])).age):  # noqa: ASYNC110 - the clock of another process.
        await asyncio.sleep(0.002)
    return age


async def test_reservations_count_until_they_are_released(client: Client, writer: RedisWriter, lookup: Lookup) -> None:
    await writer.replace_pool(pool(names(3)))
    made = [await reserve(lookup, 60) for _ in range(4)]
    ledger = await writer.read_ledger(0, [*NODES, "other"])
    assert sum(ledger.in_use.values()) == 4
    assert ledger.in_use["other"] == 0
    assert ledger.reserved == names(3)
    assert 59 < ledger.longest <= 60
    assert ledger.total == 4
    assert ledger.last_expiry.keys() == set(NODES)
    for reservation in made:
        await lookup.release(reservation)
    ledger = await writer.read_ledger(0, NODES)
    assert (ledger.in_use, ledger.reserved, ledger.last_expiry) == (dict.fromkeys(NODES, 0), frozenset(), {})
    assert await load_key_sizes(client) == (1, 1, 1), "the mark alone"


async def test_a_load_report_counts_as_use_and_proves_no_reservation(writer: RedisWriter, lookup: Lookup) -> None:
    await lookup.report_load({NODES[0]: 1.5}, source="d", seconds=60)
    ledger = await writer.read_ledger(0, NODES)
    assert (ledger.in_use[NODES[0]], ledger.reserved) == (2, frozenset())


@pytest.mark.parametrize(
    "loss",
    [
        ("FLUSHALL",),
        ("DEL", LOAD),
        ("DEL", ENTRIES),
        ("DEL", EXPIRIES),
        ("DEL", LOAD, ENTRIES, EXPIRIES),
        ("FUNCTION LOAD", "REPLACE", library_source()[0]),
    ],
    ids=lambda loss: " ".join(loss)[:24],
)
async def test_a_ledger_that_may_have_lost_a_reservation_begins_again(
    client: Client, writer: RedisWriter, lookup: Lookup, loss: tuple[str, ...]
) -> None:
    """A new load of the functions stands for a new server process: both begin without memory."""
    await writer.replace_pool(pool(names(3)))
    await reserve(lookup)
    age = await aged(writer)
    await reserve(lookup)
    assert (await writer.read_ledger(0, [])).age >= age, "what is not lost goes on"
    await client.execute_command(*loss)
    if loss == ("FLUSHALL",):
        writer = await claimed_writer(client)
    assert (await writer.read_ledger(0, [])).age == 0


async def test_reservations_beyond_the_first_thousand_are_seen_in_turn(client: Client, writer: RedisWriter) -> None:
    await writer.read_ledger(0, [])
    pipe = client.pipeline()
    for number in range(1200):
        pipe.execute_command("HSET", ENTRIES, f"id{number}", f"n{number} 1")
        pipe.execute_command("ZADD", EXPIRIES, 3e12 - number, f"id{number}")
        pipe.execute_command("ZADD", LOAD, 1, f"n{number}")
    await pipe.execute()
    first = await writer.read_ledger(0, ["n0", "n1199"])
    assert (first.total, len(first.reserved), first.in_use) == (1200, 999, {"n0": 1, "n1199": 1})
    assert first.last_expiry.keys() == {"n0"}
    assert first.reserved | (await writer.read_ledger(1000, [])).reserved == {f"n{number}" for number in range(1200)}


async def test_many_draining_nodes_are_read_in_several_calls(writer: RedisWriter, lookup: Lookup) -> None:
    await writer.replace_pool(pool(names(1)))
    reservation = await reserve(lookup)
    many = [reservation.node, *(f"n{number}" for number in range(1200))]
    ledger = await writer.read_ledger(0, many)
    assert len(ledger.in_use) == 1201
    assert ledger.in_use[reservation.node] == 1


async def test_the_ledger_begins_before_a_node_is_offered_so_that_a_drain_at_once_can_be_confirmed(
    client: Client,
) -> None:
    fleet = redis_fleet(client)
    fleet.set_pool(pool_of("edge-1"))
    async with leading(fleet):
        assert await client.execute_command("ZSCORE", EXPIRIES, ".ledger")


async def test_an_operator_that_may_not_begin_a_ledger_offers_nodes_all_the_same(
    server: RedisServer, client: Client
) -> None:
    rules = [*acl_rules()[OPERATOR], "-zincrby"]
    await client.execute_command("ACL", "SETUSER", OPERATOR, "reset", *rules)
    operator = connect(f"redis://{OPERATOR}:CHANGE-ME@127.0.0.1:{server.port}/0")
    leadership = FixedLeadership(3)
    fleet = RedisFleet(RedisWriter(operator, leadership, namespace="speech"), leadership)
    fleet.set_pool(pool_of("edge-1"))
    async with leading(fleet):
        assert await client.zcard(EXPIRIES) == 0
        assert holds(server, "edge-1")
    await operator.aclose()
