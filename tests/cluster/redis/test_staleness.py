"""A bound on the projection's age, and look-ups while nobody writes (E1, E2, E6)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.support.redis_fixture_lookup import KEYS, claimed, names, node_of, picked, pool, reason_of

from hotpool.lookup import Lookup, NoMember, Reason

if TYPE_CHECKING:
    from hotpool.projection.connection.async_connection import Client
    from hotpool.projection.writer import RedisWriter


@pytest.fixture
async def writer(client: Client) -> RedisWriter:
    made = await claimed(client)
    await made.replace_pool(pool(names(3), ["s"], ["d", "e"]))
    return made


async def age(client: Client, seconds: float) -> None:
    """Let the last stamp be so many seconds older."""
    stamp = int(await client.execute_command("HGET", KEYS.meta, "stampMs"))
    await client.execute_command("HSET", KEYS.meta, "stampMs", str(stamp - round(seconds * 1000)))


HOW = [{}, {"strategy": "least-loaded"}, {"key": "user-1"}, {"reserve": 60}]


@pytest.mark.parametrize("how", HOW)
async def test_an_old_projection_answers_unless_a_bound_was_asked_for(
    client: Client, writer: RedisWriter, lookup: Lookup, how: dict[str, str]
) -> None:
    """Static stability: with no operator for hours look-ups go on, and say how old it is."""
    await writer.stamp(complete=True)
    await age(client, 3600)
    answer = picked(await lookup.pick("zh-en", **how))  # type: ignore[arg-type]
    assert answer.node in names(3)
    assert answer.age_seconds is not None
    assert 3600 <= answer.age_seconds < 3660
    assert node_of(await lookup.pick("zh-en", max_age=3700, **how)) in names(3)  # type: ignore[arg-type]
    refused = await lookup.pick("zh-en", max_age=3599, **how)  # type: ignore[arg-type]
    assert isinstance(refused, NoMember)
    assert refused.reason is Reason.STALE
    counts = refused.counts
    assert (counts.members, counts.ready, counts.suspect, counts.draining, counts.excluded) == (6, 3, 1, 2, 0)
    assert refused.age_seconds is not None
    assert 3600 <= refused.age_seconds < 3660


async def test_a_bound_is_met_by_an_age_up_to_it(client: Client, writer: RedisWriter, lookup: Lookup) -> None:
    await writer.stamp(complete=True)
    await age(client, -3600)  # the clock of Redis went back: the age is 0, as far as anybody can know
    assert node_of(await lookup.pick("zh-en", max_age=0)) in names(3)
    await age(client, 3600.2)
    assert reason_of(await lookup.pick("zh-en", max_age=0.1)) is Reason.STALE


async def test_who_asks_for_a_bound_gets_nothing_of_unknown_age_or_incomplete(
    writer: RedisWriter, lookup: Lookup
) -> None:
    assert reason_of(await lookup.pick("zh-en", max_age=60)) is Reason.STALE
    assert node_of(await lookup.pick("zh-en")) in names(3)
    await writer.stamp(complete=False)
    refused = await lookup.pick("zh-en", max_age=60)
    assert (reason_of(refused), refused.complete) == (Reason.STALE, False)
    assert node_of(await lookup.pick("zh-en")) in names(3)
    await writer.stamp(complete=True)
    assert node_of(await lookup.pick("zh-en", max_age=60)) in names(3)


async def test_an_old_projection_does_not_know_which_pools_there_are(
    client: Client, writer: RedisWriter, lookup: Lookup
) -> None:
    await writer.stamp(complete=True)
    assert reason_of(await lookup.pick_key("speech", "xx-yy", max_age=60)) is Reason.POOL_UNKNOWN
    await lookup.pick_key("speech", "zh-en")
    await age(client, 100)
    assert reason_of(await lookup.pick_key("speech", "xx-yy", max_age=60)) is Reason.STALE
    assert reason_of(await lookup.pick_key("speech", "zh-en", max_age=60)) is Reason.STALE
    assert node_of(await lookup.pick_key("speech", "zh-en", max_age=160)) in names(3)
