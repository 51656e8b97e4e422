"""Thousands of pools in one fleet: written, found, rebuilt after a flush, and deleted (E1, E4)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tests.support.redis_fixture_lookup import KEYS, node_of, reason_of
from tests.support.redis_fleet import leading, redis_fleet, until

from hotpool.lookup import Lookup, Reason
from hotpool.projection.documents import PoolDocument

if TYPE_CHECKING:
    from hotpool.projection.connection.async_connection import Client
    from localfleet.redis_server import RedisServer


def make_document(number: int) -> PoolDocument:
    members = frozenset(f"edge-{number + place}" for place in range(3))
    return PoolDocument(f"pairs-{number}", f"u{number}", "pairs", str(number), members, frozenset(), frozenset())


async def test_two_thousand_pools_are_written_found_rebuilt_and_deleted(
    server: RedisServer, client: Client, lookup: Lookup
) -> None:
    await check_many_pools(server, client, lookup, 2_000)


async def check_many_pools(server: RedisServer, client: Client, lookup: Lookup, pools: int) -> None:
    """Write `pools` pools, flush the server, wait until they are rebuilt, and delete all but one."""
    fleet = redis_fleet(client)
    documents = [make_document(number) for number in range(pools)]
    for document in documents:
        fleet.set_pool(document)
    async with leading(fleet, 120):
        await check_lookups(lookup, pools)
        await asyncio.to_thread(server.ask, "FLUSHALL")
        assert not (await lookup.pick_key("pairs", "5")).complete

        async def complete() -> bool:
            return (await lookup.pick_key("pairs", "5")).complete

        await until(complete, 120)
        await check_lookups(lookup, pools)
        assert await client.execute_command("SCARD", KEYS.pools) == pools
        assert await client.execute_command("HLEN", KEYS.index) == pools
    successor = redis_fleet(client, term=4)
    successor.set_pool(documents[7])
    async with leading(successor, 120):
        assert node_of(await lookup.pick_key("pairs", "7")) in documents[7].ready
        assert {key.decode() for key in await client.execute_command("KEYS", "*")} == {
            KEYS.meta,
            KEYS.pools,
            KEYS.index,
            *KEYS.pool("pairs-7")[:2],
            *KEYS.load,
        }


async def check_lookups(lookup: Lookup, pools: int) -> None:
    """Look up a sample of the pools, and an unknown one, by key in a complete projection."""
    for number in range(0, pools, 197):
        answer = await lookup.pick_key("pairs", str(number))
        assert node_of(answer) in make_document(number).ready
        assert answer.complete
    assert reason_of(await lookup.pick_key("pairs", str(pools))) is Reason.POOL_UNKNOWN
