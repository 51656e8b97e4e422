"""Two clusters that share a Redis, a prefix and the name of a namespace: told apart, never mixed (E1, E4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hotpool.projection.documents import PoolDocument
from hotpool.projection.keys import FleetKeys
from hotpool.projection.redis_errors import OtherClusterError
from hotpool.projection.writer import RedisWriter

if TYPE_CHECKING:
    from hotpool.projection.connection.async_connection import Client

META = FleetKeys("hotpool", "speech").meta
POOL = PoolDocument("zh-en", "u1", None, None, frozenset("ab"), frozenset(), frozenset())


def make(client: Client) -> RedisWriter:
    return RedisWriter(client, namespace="speech", leader=lambda: True)


async def everything(client: Client) -> dict[bytes, bytes]:
    names = await client.execute_command("KEYS", "*")
    return {name: await client.execute_command("DUMP", name) for name in names}


async def age(client: Client, seconds: int, *fields: str) -> None:
    """Put these moments of the projection back."""
    for field in fields:
        if await client.execute_command("HEXISTS", META, field):
            await client.execute_command("HINCRBY", META, field, str(-seconds * 1000))


@pytest.fixture
async def first(client: Client) -> RedisWriter:
    """The projection of cluster `one`."""
    made = make(client)
    assert await made.claim(3, "one") == 3
    await made.replace_pool(POOL)
    await made.stamp(complete=True)
    return made


@pytest.mark.parametrize("term", [1, 3, 99])
@pytest.mark.parametrize("old", [(), ("stampMs",), ("claimMs",)])
async def test_another_clusters_living_projection_is_not_touched_whatever_our_term(
    client: Client, first: RedisWriter, term: int, old: tuple[str, ...]
) -> None:
    await age(client, 61, *old)
    before = await everything(client)
    with pytest.raises(OtherClusterError, match="give one of them another --redis-prefix"):
        await make(client).claim(term, "two")
    assert await everything(client) == before
    await first.stamp(complete=True)


async def test_a_projection_given_up_is_taken_over_with_a_larger_term(client: Client, first: RedisWriter) -> None:
    second = make(client)
    await age(client, 59, "stampMs", "claimMs")
    with pytest.raises(OtherClusterError):
        await second.claim(1, "two")
    await age(client, 2, "stampMs", "claimMs")
    assert await second.claim(1, "two") == 3
    assert await second.claim(4, "two") == 4
    assert (await second.check_drift({}, {})).stray_pools == {"zh-en"}
    with pytest.raises(OtherClusterError):  # not Fenced: its operator leads its own cluster as before
        await first.replace_pool(POOL)
    with pytest.raises(OtherClusterError):
        await first.claim(99, "one")


async def test_a_moment_to_come_is_no_sign_of_life(client: Client, first: RedisWriter) -> None:
    assert first
    await age(client, -1_000_000, "stampMs", "claimMs")
    assert await make(client).claim(4, "two") == 4


async def test_our_own_and_a_nameless_projection_is_claimed_at_once(client: Client, first: RedisWriter) -> None:
    assert first
    assert await make(client).claim(4, "one") == 4
    await client.execute_command("HDEL", META, "cluster")
    assert await make(client).claim(5, "two") == 5
