"""Reservations and load reports under faults: no node, damaged keys, a flush, invalid arguments (E6)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.support.redis_fixture_lookup import (
    ENTRIES,
    EXPIRIES,
    KEYS,
    LOAD,
    claimed_writer,
    load_key_sizes,
    names,
    node_of,
    pool,
    reserve,
)

from hotpool.lookup import Lookup, NoMember, Reason
from hotpool.projection.functions import LIBRARY

if TYPE_CHECKING:
    from hotpool.projection.connection.async_connection import Client
    from hotpool.projection.writer import RedisWriter


@pytest.fixture
async def writer(client: Client) -> RedisWriter:
    return await claimed_writer(client)


async def test_a_pick_without_a_node_reserves_nothing(client: Client, writer: RedisWriter, lookup: Lookup) -> None:
    await writer.replace_pool(pool(draining=["d"]))
    for name, reason in (("zh-en", Reason.ONLY_DRAINING), ("none", Reason.POOL_UNKNOWN)):
        answer = await lookup.pick(name, reserve=60)
        assert isinstance(answer, NoMember)
        assert answer.reason is reason
    await writer.replace_pool(pool(["a"]))
    answer = await lookup.pick("zh-en", reserve=60, max_age=10)
    assert isinstance(answer, NoMember)
    assert answer.reason is Reason.STALE
    assert await load_key_sizes(client) == (0, 0, 0)


@pytest.mark.parametrize("key", [LOAD, ENTRIES, EXPIRIES])
@pytest.mark.parametrize("damage", [("DEL",), ("SET", "garbage")])
async def test_damaged_load_keys_are_reset_and_never_fail_a_pick(
    client: Client, writer: RedisWriter, lookup: Lookup, key: str, damage: tuple[str, ...]
) -> None:
    await writer.replace_pool(pool(names(3)))
    old = [await reserve(lookup) for _ in range(6)]
    await client.execute_command("DEL", key)
    if damage[0] == "SET":
        await client.execute_command("SET", key, damage[1])
    assert node_of(await lookup.pick("zh-en", strategy="least-loaded")) in names(3)
    assert not await lookup.release(old[0])
    assert await load_key_sizes(client) == (0, 0, 0)
    assert {(await reserve(lookup)).node for _ in range(3)} == names(3)
    await writer.stamp(complete=True)
    assert await load_key_sizes(client) == (3, 3, 3)


async def test_a_flush_loses_only_reservations(client: Client, writer: RedisWriter, lookup: Lookup) -> None:
    await writer.replace_pool(pool(names(3)))
    reservation = await reserve(lookup)
    await client.execute_command("FLUSHALL")
    restarted = await claimed_writer(client)
    await restarted.replace_pool(pool(names(3)))
    await restarted.stamp(complete=True)
    assert not await lookup.release(reservation)
    assert await lookup.renew(reservation.id, 60) is None
    assert (await lookup.members("zh-en")).ready == tuple(sorted(names(3)))
    assert {(await reserve(lookup)).node for _ in range(3)} == names(3)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("pick", ("best", "0.5", "", "")),
        ("pick", ("uniform", "1", "", "")),
        ("pick", ("uniform", "nan", "", "")),
        ("pick", ("least-loaded", "-0.1", "", "")),
        ("pick", ("affinity", "", "", "")),
        ("pick", ("uniform", "0.5", "", "", "soon")),
        ("pick", ("uniform", "0.5", "5:asr", "", "")),
        ("reserve", ("id", 1, 1000, "uniform", "0.5", "asr", "", "")),
        ("reserve", ("", 1, 1000, "uniform", "0.5", "", "")),
        ("reserve", ("id", 0, 1000, "uniform", "0.5", "", "")),
        ("reserve", ("id", "nan", 1000, "uniform", "0.5", "", "")),
        ("reserve", ("id", "inf", 1000, "uniform", "0.5", "", "")),
        ("reserve", ("id", 1, 0, "uniform", "0.5", "", "")),
        ("reserve", ("id", 1, 86_400_001, "uniform", "0.5", "", "")),
        ("reserve", ("id", 1, 1000, "best", "0.5", "", "")),
        ("renew", ("id", "0")),
        ("report", ("one", 1000, "a")),
        ("report", ("one", 1000, "a", "1", "b", "much")),
        ("report", ("one", "1.5", "a", 1)),
    ],
)
async def test_the_functions_refuse_invalid_arguments_and_write_nothing(
    client: Client, writer: RedisWriter, name: str, words: tuple[str | int, ...]
) -> None:
    await writer.replace_pool(pool(["a"]))
    picked = (KEYS.meta, *KEYS.pool("zh-en")[:3], KEYS.endpoints, KEYS.services("zh-en"))
    keys = {
        "pick": (*picked, LOAD),
        "reserve": (*picked, *KEYS.load),
    }.get(name, KEYS.load)
    with pytest.raises(Exception, match="BADARGUMENT"):
        await client.execute_command("FCALL", f"{LIBRARY}_{name}", len(keys), *keys, *words)
    assert await load_key_sizes(client) == (0, 0, 0)
