"""A limit for the age of the projection, and look-ups without an operator (E1, E2, E6)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.support.redis_fixture_lookup import KEYS, claimed_writer, expect_picked, names, node_of, pool, reason_of

from hotpool.lookup import Lookup, NoMember, Reason

if TYPE_CHECKING:
    from hotpool.projection.connection.async_connection import Client
    from hotpool.projection.writer import RedisWriter


@pytest.fixture
async def writer(client: Client) -> RedisWriter:
    writer = await claimed_writer(client)
    await writer.replace_pool(pool(names(3), ["s"], ["d", "e"]))
    return writer


async def make_older(client: Client, seconds: float) -> None:
    """Make the last stamp `seconds` older."""
    stamp = int(await client.execute_command("HGET", KEYS.meta, "stampMs"))
    await client.execute_command("HSET", KEYS.meta, "stampMs", str(stamp - round(seconds * 1000)))


OPTIONS = [{}, {"strategy": "least-loaded"}, {"key": "user-1"}, {"reserve": 60}]


@pytest.mark.parametrize("options", OPTIONS)
async def test_an_old_projection_is_used_unless_its_age_is_limited(
    client: Client, writer: RedisWriter, lookup: Lookup, options: dict[str, str]
) -> None:
    """Static stability: without an operator for hours, look-ups continue and return the age."""
    await writer.stamp(complete=True)
    await make_older(client, 3600)
    answer = expect_picked(await lookup.pick("zh-en", **options))  # type: ignore[arg-type]
    assert answer.node in names(3)
    assert answer.age_seconds is not None
    assert 3600 <= answer.age_seconds < 3660
    assert node_of(await lookup.pick("zh-en", max_age=3700, **options)) in names(3)  # type: ignore[arg-type]
    refused = await lookup.pick("zh-en", max_age=3599, **options)  # type: ignore[arg-type]
    assert isinstance(refused, NoMember)
    assert refused.reason is Reason.STALE
    counts = refused.counts
    assert (counts.members, counts.ready, counts.suspect, counts.draining, counts.excluded) == (6, 3, 1, 2, 0)
    assert refused.age_seconds is not None
    assert 3600 <= refused.age_seconds < 3660


async def test_an_age_up_to_the_limit_is_accepted(client: Client, writer: RedisWriter, lookup: Lookup) -> None:
    await writer.stamp(complete=True)
    await make_older(client, -3600)  # the clock of Redis was set back: the age counts as 0
    assert node_of(await lookup.pick("zh-en", max_age=0)) in names(3)
    await make_older(client, 3600.2)
    assert reason_of(await lookup.pick("zh-en", max_age=0.1)) is Reason.STALE


async def test_a_limit_refuses_an_unknown_age_and_an_incomplete_projection(writer: RedisWriter, lookup: Lookup) -> None:
    assert reason_of(await lookup.pick("zh-en", max_age=60)) is Reason.STALE
    assert node_of(await lookup.pick("zh-en")) in names(3)
    await writer.stamp(complete=False)
    refused = await lookup.pick("zh-en", max_age=60)
    assert (reason_of(refused), refused.complete) == (Reason.STALE, False)
    assert node_of(await lookup.pick("zh-en")) in names(3)
    await writer.stamp(complete=True)
    assert node_of(await lookup.pick("zh-en", max_age=60)) in names(3)


async def test_an_unknown_pool_of_a_projection_beyond_the_limit_is_stale(
    client: Client, writer: RedisWriter, lookup: Lookup
) -> None:
    await writer.stamp(complete=True)
    assert reason_of(await lookup.pick_key("speech", "xx-yy", max_age=60)) is Reason.POOL_UNKNOWN
    await lookup.pick_key("speech", "zh-en")
    await make_older(client, 100)
    assert reason_of(await lookup.pick_key("speech", "xx-yy", max_age=60)) is Reason.STALE
    assert reason_of(await lookup.pick_key("speech", "zh-en", max_age=60)) is Reason.STALE
    assert node_of(await lookup.pick_key("speech", "zh-en", max_age=160)) in names(3)
