"""Two clusters with the same Redis, prefix and namespace name: distinguished and never mixed (E1, E4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.support.leadership import FixedLeadership

from hotpool.projection.documents import PoolDocument
from hotpool.projection.keys import FleetKeys
from hotpool.projection.redis_errors import OtherClusterError
from hotpool.projection.writer import RedisWriter

if TYPE_CHECKING:
    from hotpool.projection.connection.async_connection import Client

META = FleetKeys("hotpool", "speech").meta
POOL = PoolDocument("zh-en", "u1", None, None, frozenset("ab"), frozenset(), frozenset())


def make_writer(client: Client) -> RedisWriter:
    return RedisWriter(client, FixedLeadership(), namespace="speech")


async def dump_all(client: Client) -> dict[bytes, bytes]:
    names = await client.execute_command("KEYS", "*")
    return {name: await client.execute_command("DUMP", name) for name in names}


async def make_older(client: Client, seconds: int, *fields: str) -> None:
    """Make these times of the projection `seconds` older."""
    for field in fields:
        if await client.execute_command("HEXISTS", META, field):
            await client.execute_command("HINCRBY", META, field, str(-seconds * 1000))


@pytest.fixture
async def first(client: Client) -> RedisWriter:
    """Writer of the projection of cluster `one`."""
    writer = make_writer(client)
    assert await writer.claim(3, "one") == 3
    await writer.replace_pool(POOL)
    await writer.stamp(complete=True)
    return writer


@pytest.mark.parametrize("term", [1, 3, 99])
@pytest.mark.parametrize("old", [(), ("stampMs",), ("claimMs",)])
async def test_another_clusters_projection_in_use_is_not_changed_at_any_term(
    client: Client, first: RedisWriter, term: int, old: tuple[str, ...]
) -> None:
    await make_older(client, 61, *old)
    before = await dump_all(client)
    with pytest.raises(OtherClusterError, match="give one of them another --redis-prefix"):
        await make_writer(client).claim(term, "two")
    assert await dump_all(client) == before
    await first.stamp(complete=True)


async def test_an_abandoned_projection_is_taken_over_with_a_larger_term(client: Client, first: RedisWriter) -> None:
    second = make_writer(client)
    await make_older(client, 59, "stampMs", "claimMs")
    with pytest.raises(OtherClusterError):
        await second.claim(1, "two")
    await make_older(client, 2, "stampMs", "claimMs")
    assert await second.claim(1, "two") == 3
    assert await second.claim(4, "two") == 4
    assert (await second.check_drift({}, {})).stray_pools == {"zh-en"}
    with pytest.raises(OtherClusterError):  # not FencedError: the operator still leads its own cluster
        await first.replace_pool(POOL)
    with pytest.raises(OtherClusterError):
        await first.claim(99, "one")


async def test_a_time_in_the_future_is_no_sign_of_life(client: Client, first: RedisWriter) -> None:
    assert first
    await make_older(client, -1_000_000, "stampMs", "claimMs")
    assert await make_writer(client).claim(4, "two") == 4


async def test_our_projection_and_one_without_a_cluster_are_claimed_at_once(client: Client, first: RedisWriter) -> None:
    assert first
    assert await make_writer(client).claim(4, "one") == 4
    await client.execute_command("HDEL", META, "cluster")
    assert await make_writer(client).claim(5, "two") == 5
