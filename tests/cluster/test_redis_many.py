"""Ten thousand pools in one fleet: projected, found, rebuilt after a flush, and dropped (E1, E4)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from tests.cluster.mirrored import Ours, until
from tests.cluster.projected import KEYS, node_of, reason_of

from hotpool.lookup import Lookup, Reason
from hotpool.projection.images import PoolImage

if TYPE_CHECKING:
    from hotpool.projection.client import Client
    from localfleet.redis_server import RedisServer

POOLS = 10_000
TRIED = range(0, POOLS, 997)


def image(number: int) -> PoolImage:
    members = frozenset(f"edge-{number + place}" for place in range(3))
    return PoolImage(f"pairs-{number}", f"u{number}", "pairs", str(number), members, frozenset(), frozenset())


@pytest.mark.timeout(600)
async def test_e1_ten_thousand_pools_are_projected_found_rebuilt_and_dropped(
    server: RedisServer, client: Client, lookup: Lookup
) -> None:
    ours = Ours(client)
    images = [image(number) for number in range(POOLS)]
    for one in images:
        await ours.mirror.pool(one)
    rounds = asyncio.create_task(ours.mirror.run())
    try:
        await until(lambda: ours.mirror.up, 120)
        await answered(lookup)
        await asyncio.to_thread(server.ask, "FLUSHALL")
        assert not (await lookup.pick_key("pairs", "5")).complete

        async def complete() -> bool:
            return (await lookup.pick_key("pairs", "5")).complete

        await until(complete, 120)
        await answered(lookup)
        assert await client.execute_command("SCARD", KEYS.pools) == POOLS
        assert await client.execute_command("HLEN", KEYS.index) == POOLS
    finally:
        rounds.cancel()
        await asyncio.gather(rounds, return_exceptions=True)
    following = Ours(client)
    following.term = 4
    await following.mirror.pool(images[7])
    rounds = asyncio.create_task(following.mirror.run())
    try:
        await until(lambda: following.mirror.up, 120)
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


async def answered(lookup: Lookup) -> None:
    """By their keys, and complete: a complete projection knows all pools."""
    for number in TRIED:
        answer = await lookup.pick_key("pairs", str(number))
        assert node_of(answer) in image(number).ready
        assert answer.complete
    assert reason_of(await lookup.pick_key("pairs", str(POOLS))) is Reason.POOL_UNKNOWN
