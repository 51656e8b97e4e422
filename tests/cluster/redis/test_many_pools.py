"""Thousands of pools in one fleet: projected, found, rebuilt after a flush, and dropped (E1, E4)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from tests.support.redis_fixture_lookup import KEYS, node_of, reason_of
from tests.support.redis_fixture_publisher import Ours, until

from hotpool.lookup import Lookup, Reason
from hotpool.projection.documents import PoolDocument

if TYPE_CHECKING:
    from hotpool.projection.connection.async_connection import Client
    from localfleet.redis_server import RedisServer


def image(number: int) -> PoolDocument:
    members = frozenset(f"edge-{number + place}" for place in range(3))
    return PoolDocument(f"pairs-{number}", f"u{number}", "pairs", str(number), members, frozenset(), frozenset())


async def test_two_thousand_pools_are_projected_found_rebuilt_and_dropped(
    server: RedisServer, client: Client, lookup: Lookup
) -> None:
    await come_and_go(server, client, lookup, 2_000)


async def come_and_go(server: RedisServer, client: Client, lookup: Lookup, pools: int) -> None:
    """Project so many pools, flush the server, wait for them again, and drop all but one."""
    ours = Ours(client)
    images = [image(number) for number in range(pools)]
    for one in images:
        await ours.mirror.publish_pool(one)
    rounds = asyncio.create_task(ours.mirror.run())
    try:
        await until(lambda: ours.mirror.healthy, 120)
        await answered(lookup, pools)
        await asyncio.to_thread(server.ask, "FLUSHALL")
        assert not (await lookup.pick_key("pairs", "5")).complete

        async def complete() -> bool:
            return (await lookup.pick_key("pairs", "5")).complete

        await until(complete, 120)
        await answered(lookup, pools)
        assert await client.execute_command("SCARD", KEYS.pools) == pools
        assert await client.execute_command("HLEN", KEYS.index) == pools
    finally:
        rounds.cancel()
        await asyncio.gather(rounds, return_exceptions=True)
    following = Ours(client)
    following.term = 4
    await following.mirror.publish_pool(images[7])
    rounds = asyncio.create_task(following.mirror.run())
    try:
        await until(lambda: following.mirror.healthy, 120)
        assert node_of(await lookup.pick_key("pairs", "7")) in images[7].ready
        assert {key.decode() for key in await client.execute_command("KEYS", "*")} == {
            KEYS.meta,
            KEYS.pools,
            KEYS.index,
            *KEYS.pool("pairs-7")[:2],
        }
    finally:
        rounds.cancel()
        await asyncio.gather(rounds, return_exceptions=True)


async def answered(lookup: Lookup, pools: int) -> None:
    """Look up some by their keys: a complete projection knows all pools."""
    for number in range(0, pools, 197):
        answer = await lookup.pick_key("pairs", str(number))
        assert node_of(answer) in image(number).ready
        assert answer.complete
    assert reason_of(await lookup.pick_key("pairs", str(pools))) is Reason.POOL_UNKNOWN
