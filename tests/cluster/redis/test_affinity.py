"""Picks by affinity key on a real server: keys moved by changes of members, and even shares (E6)."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from tests.support.redis_fixture_lookup import KEYS, Ring, claimed_writer, names, node_of, pool

from hotpool.lookup import Lookup, SyncLookup
from hotpool.projection.functions import LIBRARY

if TYPE_CHECKING:
    from collections.abc import Collection

    from hotpool.projection.connection.async_connection import Client
    from hotpool.projection.writer import RedisWriter
    from localfleet.redis_server import RedisServer

USERS = [f"user-{number}" for number in range(1500)]
BATCH = 8


@pytest.fixture
async def writer(client: Client) -> RedisWriter:
    return await claimed_writer(client)


async def nodes_by_user(lookup: Lookup, exclude: Collection[str] = ()) -> dict[str, str]:
    """Return the node of each user's key. Batches save a wake-up of the event loop per reply."""
    found: dict[str, str] = {}
    for first in range(0, len(USERS), BATCH):
        users = USERS[first : first + BATCH]
        answers = await asyncio.gather(*(lookup.pick("zh-en", key=user, exclude=exclude) for user in users))
        found |= zip(users, map(node_of, answers), strict=True)
    return found


@pytest.mark.parametrize("gone", ["edge-3", "edge-17"])
async def test_removing_one_of_n_nodes_moves_its_keys_and_no_others(
    writer: RedisWriter, lookup: Lookup, gone: str
) -> None:
    await writer.replace_pool(pool(names(20)))
    before = await nodes_by_user(lookup)
    await writer.replace_pool(pool(names(20) - {gone}))
    after = await nodes_by_user(lookup)
    moved = {user for user in USERS if before[user] != after[user]}
    assert moved == {user for user in USERS if before[user] == gone}
    assert 0 < len(moved) < 1.3 * len(USERS) / 20
    assert len({after[user] for user in moved}) > 5


async def test_a_new_node_takes_its_share_and_no_key_moves_between_others(writer: RedisWriter, lookup: Lookup) -> None:
    await writer.replace_pool(pool(names(20)))
    before = await nodes_by_user(lookup)
    await writer.replace_pool(pool(names(20) | {"fresh"}))
    after = await nodes_by_user(lookup)
    moved = {user for user in USERS if before[user] != after[user]}
    assert {after[user] for user in moved} == {"fresh"}
    assert 0 < len(moved) < 1.3 * len(USERS) / 21


async def test_an_excluded_or_suspect_node_is_treated_as_absent(writer: RedisWriter, lookup: Lookup) -> None:
    await writer.replace_pool(pool(names(20) - {"edge-3", "edge-4"}))
    absent = await nodes_by_user(lookup)
    await writer.replace_pool(pool(names(20), ["s"]))
    assert await nodes_by_user(lookup, ["edge-3", "edge-4", "edge-3", "s", "unknown"]) == absent
    await writer.replace_pool(pool(names(20) - {"edge-3", "edge-4"}, ["edge-3", "edge-4"]))
    assert await nodes_by_user(lookup) == absent


async def test_the_last_node_left_has_every_key_and_a_pool_of_suspects_keeps_affinity(
    writer: RedisWriter, lookup: Lookup
) -> None:
    await writer.replace_pool(pool(names(20)))
    assert set((await nodes_by_user(lookup, names(20) - {"edge-7"})).values()) == {"edge-7"}
    ready = await nodes_by_user(lookup)
    await writer.replace_pool(pool((), names(20)))
    assert await nodes_by_user(lookup) == ready


async def test_the_server_follows_the_documented_algorithm_for_every_client(
    server: RedisServer, client: Client, writer: RedisWriter, lookup: Lookup
) -> None:
    nodes = names(300)
    await writer.replace_pool(pool(nodes))
    ring = Ring(nodes)
    expected = {user: ring.node(user) for user in [*USERS[:300], "ключ", "a b", "{x}"]}
    keys = (KEYS.meta, *KEYS.pool("zh-en")[:3], KEYS.endpoints, KEYS.services("zh-en"))
    with SyncLookup.from_url(server.url, namespace="speech") as sync_lookup:
        for user, node in expected.items():
            assert node_of(await lookup.pick("zh-en", key=user)) == node
            assert node_of(sync_lookup.pick("zh-en", key=user)) == node
            reply = await client.execute_command("FCALL_RO", f"{LIBRARY}_pick", 6, *keys, "affinity", user)
            assert reply.decode().split()[0] == node


@pytest.mark.parametrize("count", [10, 50])
async def test_no_node_has_much_more_than_its_share_of_keys(writer: RedisWriter, lookup: Lookup, count: int) -> None:
    """Check the shares of the algorithm over many keys, and the server on a sample."""
    await writer.replace_pool(pool(names(count)))
    ring = Ring(names(count))
    keys = [f"session-{number}" for number in range(20_000)]
    shares = Counter(ring.node(key) for key in keys)
    assert max(shares.values()) < 1.25 * len(keys) / count
    assert shares.keys() == names(count)
    assert {key: node_of(await lookup.pick("zh-en", key=key)) for key in keys[:50]} == {
        key: ring.node(key) for key in keys[:50]
    }
