"""The writer against a real server: atomic, fenced, versioned, and able to start again from anything.

Requirements D10, D11, E1, E2, E3, E5, E6.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from redis.exceptions import ResponseError
from tests.support.redis_fixture_lookup import claimed

from hotpool.errors import FencedError, NotLeaderError, RejectedError, RetryableError
from hotpool.lookup import Lookup, Members, NoMember, Reason
from hotpool.projection.connection.async_connection import Client, connect
from hotpool.projection.documents import NodeDocument, PoolDocument
from hotpool.projection.functions import Functions
from hotpool.projection.keys import FleetKeys
from hotpool.projection.redis_errors import TermNotClaimedError, VersionConflictError
from hotpool.projection.writer import RedisWriter

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from localfleet.redis_server import RedisServer

KEYS = FleetKeys("hotpool", "speech")
NODE = NodeDocument("edge-1", (("asr", True, None, ("fw",)), ("tts", False, "Stopped", ())))

WRITES: dict[str, Callable[[RedisWriter], Awaitable[Any]]] = {
    "replace": lambda writer: writer.replace_pool(pool("b")),
    "replace large": lambda writer: writer.replace_pool(pool("b", size=1200)),
    "drop": lambda writer: writer.drop_pool("zh-en"),
    "drop index": lambda writer: writer.drop_index(["speech/zh-en"]),
    "node": lambda writer: writer.replace_node(NodeDocument("edge-1", ())),
    "drop node": lambda writer: writer.drop_node("edge-1"),
    "stamp": lambda writer: writer.stamp(complete=False),
}


def pool(word: str, *, size: int = 10, name: str = "zh-en", uid: str = "u1", key: str | None = "zh-en") -> PoolDocument:
    """Return a pool of which every member begins with `word`: two Suspect, one Draining, the rest Ready."""
    names = [f"{word}-{number}" for number in range(size)]
    generator = "speech" if key else None
    return PoolDocument(name, uid, generator, key, frozenset(names[3:]), frozenset(names[1:3]), frozenset(names[:1]))


def holds(image: PoolDocument, found: Members) -> bool:
    return (found.ready, found.suspect, found.draining) == tuple(tuple(sorted(names)) for names in image.members)


def make(client: Client, leader: Callable[[], bool] = lambda: True) -> RedisWriter:
    return RedisWriter(client, namespace="speech", leader=leader)


async def everything(client: Client) -> dict[str, bytes]:
    """Return all keys of the server with their serialised values, the meta key apart."""
    names = sorted(await client.execute_command("KEYS", "*"))
    return {name.decode(): await client.execute_command("DUMP", name) for name in names if name != KEYS.meta.encode()}


@pytest.mark.parametrize("size", [100, 1200])
async def test_a_concurrent_reader_never_sees_a_mix(client: Client, lookup: Lookup, size: int) -> None:
    writer = await claimed(client)
    images = [pool("old", size=size), pool("new", size=size)]
    await writer.replace_pool(images[0])

    async def write() -> None:
        for turn in range(30):
            await writer.replace_pool(images[(turn + 1) % 2])

    writing = asyncio.create_task(write())
    seen: list[Members] = []
    while not writing.done():
        seen.append(await lookup.members("zh-en"))
    await writing
    assert all(holds(images[0], found) or holds(images[1], found) for found in seen)
    assert len({found.version for found in seen}) > 3
    assert all(holds(images[((found.version or 0) - 1) % 2], found) for found in seen)


@pytest.mark.parametrize("name", WRITES)
async def test_a_former_leaders_late_write_is_refused_by_redis(client: Client, name: str) -> None:
    former = await claimed(client, 3)
    await former.replace_pool(pool("a"))
    await former.replace_node(NODE)
    await claimed(client, 4)
    before = await everything(client)
    with pytest.raises(FencedError):
        await WRITES[name](former)
    assert await everything(client) == before


@pytest.mark.parametrize("name", WRITES)
async def test_a_server_without_a_term_refuses_until_it_is_claimed(client: Client, name: str) -> None:
    writer = await claimed(client)
    await client.execute_command("FLUSHALL")
    with pytest.raises(TermNotClaimedError):
        await WRITES[name](writer)
    assert await everything(client) == {}
    assert await writer.claim(3) == 3
    await WRITES[name](writer)


async def test_a_server_that_went_back_to_an_older_term_is_to_be_claimed_again(client: Client) -> None:
    writer = await claimed(client, 8)
    await client.execute_command("HSET", KEYS.meta, "term", "7")
    with pytest.raises(TermNotClaimedError):
        await writer.replace_pool(pool("a"))
    assert await writer.claim(8) == 8
    await writer.replace_pool(pool("a"))


async def test_a_claim_too_small_answers_what_redis_knows_and_changes_nothing(client: Client) -> None:
    leader = await claimed(client, 8)
    assert await make(client).claim(5) == 8
    assert await leader.stored_term() == 8
    await leader.stamp(complete=True)


async def test_two_processes_that_came_to_one_term_are_told_apart(client: Client) -> None:
    leader = await claimed(client, 8)
    assert await make(client).claim(8) > 8
    assert await leader.claim(8) == 8
    await leader.stamp(complete=True)


@pytest.mark.parametrize("damage", [("SET", KEYS.meta, "x"), ("HSET", KEYS.meta, "term", "-1e9")])
async def test_a_damaged_meta_key_counts_as_no_term_and_is_claimed(client: Client, damage: tuple[str, ...]) -> None:
    writer = await claimed(client)
    await client.execute_command("DEL", KEYS.meta)
    await client.execute_command(*damage)
    with pytest.raises(TermNotClaimedError):
        await writer.stamp(complete=True)
    assert await writer.stored_term() == 0
    assert await writer.claim(3) == 3
    await writer.stamp(complete=True)


async def test_promise_2_leadership_that_ends_between_two_chunks_stops_the_replace(
    client: Client, lookup: Lookup
) -> None:
    left = 4  # One claim, one replace, two chunks.

    def leader() -> bool:
        nonlocal left
        left -= 1
        return left >= 0

    writer = make(client, leader)
    await writer.claim(3)
    await writer.replace_pool(pool("old"))
    with pytest.raises(NotLeaderError):
        await writer.replace_pool(pool("new", size=1200))
    assert holds(pool("old"), await lookup.members("zh-en"))
    staged = await client.execute_command("KEYS", "*stage*")
    assert len(staged) == 1
    assert 0 < await client.execute_command("PTTL", staged[0]) <= 60_000


async def test_a_large_pool_leaves_no_staged_key_and_never_expires(client: Client, lookup: Lookup) -> None:
    writer = await claimed(client)
    await writer.replace_pool(pool("old"))
    image = pool("new", size=1200)
    await writer.replace_pool(image)
    assert holds(image, await lookup.members("zh-en"))
    assert await client.execute_command("KEYS", "*stage*") == []
    assert [await client.execute_command("PTTL", key) for key in KEYS.pool("zh-en")] == [-1] * 4


async def test_a_swap_whose_staged_members_are_gone_is_refused(client: Client, lookup: Lookup) -> None:
    writer = await claimed(client)
    await writer.replace_pool(pool("old"))
    keys = (KEYS.meta, KEYS.pools, KEYS.index, *KEYS.pool("zh-en"), *KEYS.staged("zh-en", 3, 2))
    facts: list[str | int | float] = [3, 2, "zh-en", "u1", "digest", "", "", 1197, 2, 1]
    with pytest.raises(ResponseError, match="NOSTAGE"):
        await Functions(client, may_load=True).call("swap", keys, facts)
    assert holds(pool("old"), await lookup.members("zh-en"))


async def test_an_older_version_is_refused_and_the_next_one_is_higher(client: Client, lookup: Lookup) -> None:
    writer = await claimed(client)
    await writer.replace_pool(pool("a"))
    await client.execute_command("HSET", KEYS.pool("zh-en")[0], "version", "40")
    for late in (writer.replace_pool(pool("b")), writer.drop_pool("zh-en")):
        await client.execute_command("HINCRBY", KEYS.pool("zh-en")[0], "version", "40")
        with pytest.raises(VersionConflictError):
            await late
    assert holds(pool("a"), await lookup.members("zh-en"))
    await writer.replace_pool(pool("b"))
    assert holds(pool("b"), found := await lookup.members("zh-en"))
    assert found.version == 121


async def test_a_late_node_write_is_refused_too(client: Client) -> None:
    writer = await claimed(client)
    await client.execute_command("HSET", KEYS.node("edge-1"), ".facts", "3 40 digest")
    with pytest.raises(VersionConflictError):
        await writer.replace_node(NODE)
    await writer.drop_node("edge-1")
    assert await client.execute_command("EXISTS", KEYS.node("edge-1")) == 0


async def test_a_pool_recreated_under_its_name_replaces_the_old_one_at_any_version(
    client: Client, lookup: Lookup
) -> None:
    writer = await claimed(client)
    await writer.replace_pool(pool("a"))
    await client.execute_command("HSET", KEYS.pool("zh-en")[0], "version", "40")
    image = pool("b", uid="u2")
    await writer.replace_pool(image)
    assert holds(image, await lookup.members("zh-en"))


async def test_a_lower_term_after_meta_was_lost_still_replaces_what_is_there(client: Client, lookup: Lookup) -> None:
    await (await claimed(client, 8)).replace_pool(pool("a"))
    await client.execute_command("DEL", KEYS.meta)
    await (await claimed(client, 2)).replace_pool(pool("b"))
    assert holds(pool("b"), await lookup.members("zh-en"))


@pytest.mark.parametrize("size", [10, 1200])
@pytest.mark.parametrize("key", [*KEYS.pool("zh-en"), KEYS.pools, KEYS.index])
@pytest.mark.parametrize("kind", ["SET", "LPUSH"])
async def test_garbage_of_another_type_is_overwritten(
    client: Client, lookup: Lookup, size: int, key: str, kind: str
) -> None:
    writer = await claimed(client)
    image = pool("a", size=size)
    await writer.replace_pool(image)
    await client.execute_command("DEL", key)
    await client.execute_command(kind, key, "garbage")
    await writer.replace_pool(image)
    assert holds(image, await lookup.members("zh-en"))
    assert (await writer.check_drift({"zh-en": image}, {})).clean
    await client.execute_command("DEL", key)
    await client.execute_command(kind, key, "garbage")
    await writer.drop_pool("zh-en")
    assert await client.execute_command("EXISTS", *KEYS.pool("zh-en")) == 0


@pytest.mark.parametrize("key", [KEYS.node("edge-1"), KEYS.nodes])
async def test_garbage_in_a_nodes_keys_is_overwritten(client: Client, lookup: Lookup, key: str) -> None:
    writer = await claimed(client)
    await client.execute_command("SET", key, "garbage")
    await writer.replace_node(NODE)
    assert (await writer.check_drift({}, {"edge-1": NODE})).clean
    found = await lookup.capability("edge-1")
    assert found is not None
    assert found.types["asr"].services == ("fw",)


async def test_a_nodes_capability_is_replaced_whole_never_merged(client: Client, lookup: Lookup) -> None:
    writer = await claimed(client)
    await writer.replace_node(NODE)
    await writer.replace_node(NodeDocument("edge-1", (("tts", False, "Failed", ()),)))
    found = await lookup.capability("edge-1")
    assert found is not None
    assert {kind: (state.ready, state.reason) for kind, state in found.types.items()} == {"tts": (False, "Failed")}
    await writer.drop_node("edge-1")
    assert await lookup.capability("edge-1") is None


async def test_the_index_follows_a_pool_whose_key_changed_and_goes_with_it(client: Client) -> None:
    writer = await claimed(client)
    await writer.replace_pool(pool("a", key="zh-en"))
    await writer.replace_pool(pool("a", key="zh-de"))
    assert await client.execute_command("HGETALL", KEYS.index) == {b"speech/zh-de": b"zh-en"}
    await writer.replace_pool(pool("a", key=None))
    assert await client.execute_command("HGETALL", KEYS.index) == {}
    await writer.replace_pool(pool("a", key="zh-de"))
    await client.execute_command("HSET", KEYS.index, "speech/zh-de", "another")
    await writer.drop_pool("zh-en")
    assert await client.execute_command("HGETALL", KEYS.index) == {b"speech/zh-de": b"another"}


async def test_a_dropped_pool_leaves_nothing_but_only_the_one_meant(client: Client, lookup: Lookup) -> None:
    writer = await claimed(client)
    await writer.replace_pool(pool("a"))
    await writer.drop_pool("zh-en", uid="another")
    assert holds(pool("a"), await lookup.members("zh-en"))
    await writer.drop_pool("zh-en", uid="u1")
    assert await everything(client) == {}
    answer = await lookup.pick("zh-en")
    assert isinstance(answer, NoMember)
    assert answer.reason is Reason.POOL_UNKNOWN


async def test_after_an_unknown_outcome_the_newer_write_stands(server: RedisServer, client: Client) -> None:
    await claimed(client)
    hasty = connect(server.url, timeout=1)
    writer = make(hasty)
    await writer.claim(4)
    server.pause()
    try:
        with pytest.raises(RetryableError):
            await writer.replace_pool(pool("old"))
    finally:
        server.resume()
    assert (await writer.check_drift({"zh-en": pool("old")}, {})).pools == {"zh-en"}
    await writer.replace_pool(pool("new"))
    assert (await writer.check_drift({"zh-en": pool("new")}, {})).clean
    await hasty.aclose()


async def test_a_server_that_was_killed_comes_back_empty_and_is_filled_again(
    server: RedisServer, client: Client, lookup: Lookup
) -> None:
    writer = await claimed(client)
    await writer.replace_pool(pool("a"))
    server.kill()
    with pytest.raises(RetryableError):
        await writer.replace_pool(pool("b"))
    server.start()
    with pytest.raises(TermNotClaimedError):
        await writer.replace_pool(pool("b"))
    await writer.claim(3)
    await writer.replace_pool(pool("b"))
    assert holds(pool("b"), await lookup.members("zh-en"))


async def test_a_wrong_password_is_rejected_without_being_told(server: RedisServer, client: Client) -> None:
    await client.execute_command("ACL", "SETUSER", "op", "reset", "on", ">right")
    wrong = connect(f"redis://op:wr0ng@127.0.0.1:{server.port}/0")
    with pytest.raises(RejectedError) as caught:
        await make(wrong).claim(1)
    assert "wr0ng" not in str(caught.value)
    await wrong.aclose()
