"""The writer against a real server: atomic, fenced and versioned writes, and recovery from any stored state.

Requirements D10, D11, E1, E2, E3, E5, E6.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from redis.exceptions import ResponseError
from tests.support.leadership import FixedLeadership
from tests.support.redis_fixture_lookup import NO_DRIFT, claimed_writer

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


def pool(
    prefix: str, *, size: int = 10, name: str = "zh-en", uid: str = "u1", key: str | None = "zh-en"
) -> PoolDocument:
    """Return a pool of members that begin with `prefix`: two Suspect, one Draining, the rest Ready."""
    names = [f"{prefix}-{number}" for number in range(size)]
    generator = "speech" if key else None
    return PoolDocument(name, uid, generator, key, frozenset(names[3:]), frozenset(names[1:3]), frozenset(names[:1]))


def equals(document: PoolDocument, found: Members) -> bool:
    return (found.ready, found.suspect, found.draining) == tuple(tuple(sorted(names)) for names in document.members)


def make_writer(client: Client, leadership: FixedLeadership | None = None) -> RedisWriter:
    return RedisWriter(client, leadership or FixedLeadership(), namespace="speech")


async def dump_all(client: Client) -> dict[str, bytes]:
    """Return all keys of the server with their serialised values, the meta key apart."""
    names = sorted(await client.execute_command("KEYS", "*"))
    return {name.decode(): await client.execute_command("DUMP", name) for name in names if name != KEYS.meta.encode()}


@pytest.mark.parametrize("size", [100, 1200])
async def test_a_concurrent_reader_never_sees_a_mix_of_two_documents(client: Client, lookup: Lookup, size: int) -> None:
    writer = await claimed_writer(client)
    documents = [pool("old", size=size), pool("new", size=size)]
    await writer.replace_pool(documents[0])

    async def write() -> None:
        for turn in range(30):
            await writer.replace_pool(documents[(turn + 1) % 2])

    writing = asyncio.create_task(write())
    seen: list[Members] = []
    while not writing.done():
        seen.append(await lookup.members("zh-en"))
    await writing
    assert all(equals(documents[0], found) or equals(documents[1], found) for found in seen)
    assert len({found.version for found in seen}) > 3
    assert all(equals(documents[((found.version or 0) - 1) % 2], found) for found in seen)


@pytest.mark.parametrize("name", WRITES)
async def test_a_former_leaders_late_write_is_refused_by_redis(client: Client, name: str) -> None:
    former = await claimed_writer(client, 3)
    await former.replace_pool(pool("a"))
    await former.replace_node(NODE)
    await claimed_writer(client, 4)
    before = await dump_all(client)
    with pytest.raises(FencedError):
        await WRITES[name](former)
    assert await dump_all(client) == before


@pytest.mark.parametrize("name", WRITES)
async def test_a_server_without_a_term_refuses_writes_until_it_is_claimed(client: Client, name: str) -> None:
    writer = await claimed_writer(client)
    await client.execute_command("FLUSHALL")
    with pytest.raises(TermNotClaimedError):
        await WRITES[name](writer)
    assert await dump_all(client) == {}
    assert await writer.claim(3) == 3
    await WRITES[name](writer)


async def test_a_server_with_an_older_term_must_be_claimed_again(client: Client) -> None:
    writer = await claimed_writer(client, 8)
    await client.execute_command("HSET", KEYS.meta, "term", "7")
    with pytest.raises(TermNotClaimedError):
        await writer.replace_pool(pool("a"))
    assert await writer.claim(8) == 8
    await writer.replace_pool(pool("a"))


async def test_a_claim_of_a_smaller_term_returns_the_stored_term_and_changes_nothing(client: Client) -> None:
    leader = await claimed_writer(client, 8)
    assert await make_writer(client).claim(5) == 8
    assert await client.execute_command("HGET", KEYS.meta, "term") == b"8"
    await leader.stamp(complete=True)


async def test_two_processes_with_the_same_term_are_distinguished(client: Client) -> None:
    leader = await claimed_writer(client, 8)
    assert await make_writer(client).claim(8) > 8
    assert await leader.claim(8) == 8
    await leader.stamp(complete=True)


@pytest.mark.parametrize("damage", [("SET", KEYS.meta, "x"), ("HSET", KEYS.meta, "term", "-1e9")])
async def test_a_damaged_meta_key_counts_as_no_term_and_is_claimed(client: Client, damage: tuple[str, ...]) -> None:
    writer = await claimed_writer(client)
    await client.execute_command("DEL", KEYS.meta)
    await client.execute_command(*damage)
    with pytest.raises(TermNotClaimedError):
        await writer.stamp(complete=True)
    assert await writer.claim(3) == 3
    await writer.stamp(complete=True)


async def test_a_large_replace_stops_when_leadership_ends_between_two_chunks(client: Client, lookup: Lookup) -> None:
    class Ending(FixedLeadership):
        remaining_calls = 7  # A claim with four dry calls, one replace, one chunk.

        def may_write(self) -> bool:
            self.remaining_calls -= 1
            return self.remaining_calls >= 0

    writer = make_writer(client, Ending())
    await writer.claim(3)
    await writer.replace_pool(pool("old"))
    with pytest.raises(NotLeaderError):
        await writer.replace_pool(pool("new", size=1200))
    assert equals(pool("old"), await lookup.members("zh-en"))
    staged = await client.execute_command("KEYS", "*stage*")
    assert len(staged) == 1
    assert 0 < await client.execute_command("PTTL", staged[0]) <= 60_000


async def test_a_large_pool_leaves_no_staged_key_and_never_expires(client: Client, lookup: Lookup) -> None:
    writer = await claimed_writer(client)
    await writer.replace_pool(pool("old"))
    document = pool("new", size=1200)
    await writer.replace_pool(document)
    assert equals(document, await lookup.members("zh-en"))
    assert await client.execute_command("KEYS", "*stage*") == []
    assert [await client.execute_command("PTTL", key) for key in KEYS.pool("zh-en")] == [-1] * 4


async def test_a_swap_without_its_staged_members_is_refused(client: Client, lookup: Lookup) -> None:
    writer = await claimed_writer(client)
    await writer.replace_pool(pool("old"))
    keys = (KEYS.meta, KEYS.pools, KEYS.index, *KEYS.pool("zh-en"), *KEYS.staged("zh-en", 3, 2))
    facts: list[str | int | float] = [3, 2, "zh-en", "u1", "digest", "", "", 1197, 2, 1]
    with pytest.raises(ResponseError, match="NOSTAGE"):
        await Functions(client, may_load=True).call("swap", keys, facts)
    assert equals(pool("old"), await lookup.members("zh-en"))


async def test_an_older_version_is_refused_and_the_next_one_is_higher(client: Client, lookup: Lookup) -> None:
    writer = await claimed_writer(client)
    await writer.replace_pool(pool("a"))
    await client.execute_command("HSET", KEYS.pool("zh-en")[0], "version", "40")
    for late in (writer.replace_pool(pool("b")), writer.drop_pool("zh-en")):
        await client.execute_command("HINCRBY", KEYS.pool("zh-en")[0], "version", "40")
        with pytest.raises(VersionConflictError):
            await late
    assert equals(pool("a"), await lookup.members("zh-en"))
    await writer.replace_pool(pool("b"))
    assert equals(pool("b"), found := await lookup.members("zh-en"))
    assert found.version == 121


async def test_a_node_write_of_an_older_version_is_refused(client: Client) -> None:
    writer = await claimed_writer(client)
    await client.execute_command("HSET", KEYS.node("edge-1"), ".facts", "3 40 digest")
    with pytest.raises(VersionConflictError):
        await writer.replace_node(NODE)
    await writer.drop_node("edge-1")
    assert await client.execute_command("EXISTS", KEYS.node("edge-1")) == 0


async def test_a_late_write_of_a_deleted_pool_does_not_replace_the_new_pool_of_that_name(
    client: Client, lookup: Lookup
) -> None:
    writer = await claimed_writer(client)
    await writer.replace_pool(pool("old"))
    late = asyncio.create_task(writer.replace_pool(pool("late", size=20_000)))  # many calls before it takes effect
    await asyncio.sleep(0)
    recreated = pool("new", uid="u2")
    await writer.replace_pool(recreated)
    assert not late.done()
    with pytest.raises(VersionConflictError):
        await late
    assert equals(recreated, await lookup.members("zh-en"))


async def test_a_lower_term_replaces_the_stored_pool_after_the_meta_key_was_lost(
    client: Client, lookup: Lookup
) -> None:
    await (await claimed_writer(client, 8)).replace_pool(pool("a"))
    await client.execute_command("DEL", KEYS.meta)
    await (await claimed_writer(client, 2)).replace_pool(pool("b"))
    assert equals(pool("b"), await lookup.members("zh-en"))


@pytest.mark.parametrize("size", [10, 1200])
@pytest.mark.parametrize("key", [*KEYS.pool("zh-en"), KEYS.pools, KEYS.index])
@pytest.mark.parametrize("kind", ["SET", "LPUSH"])
async def test_garbage_of_another_type_is_overwritten(
    client: Client, lookup: Lookup, size: int, key: str, kind: str
) -> None:
    writer = await claimed_writer(client)
    document = pool("a", size=size)
    await writer.replace_pool(document)
    await client.execute_command("DEL", key)
    await client.execute_command(kind, key, "garbage")
    await writer.replace_pool(document)
    assert equals(document, await lookup.members("zh-en"))
    assert await writer.check_drift({"zh-en": document}, {}) == NO_DRIFT
    await client.execute_command("DEL", key)
    await client.execute_command(kind, key, "garbage")
    await writer.drop_pool("zh-en")
    assert await client.execute_command("EXISTS", *KEYS.pool("zh-en")) == 0


@pytest.mark.parametrize("key", [KEYS.node("edge-1"), KEYS.nodes])
async def test_garbage_in_a_nodes_keys_is_overwritten(client: Client, lookup: Lookup, key: str) -> None:
    writer = await claimed_writer(client)
    await client.execute_command("SET", key, "garbage")
    await writer.replace_node(NODE)
    assert await writer.check_drift({}, {"edge-1": NODE}) == NO_DRIFT
    found = await lookup.capability("edge-1")
    assert found is not None
    assert found.types["asr"].services == ("fw",)


async def test_a_nodes_capability_is_replaced_and_not_merged(client: Client, lookup: Lookup) -> None:
    writer = await claimed_writer(client)
    await writer.replace_node(NODE)
    await writer.replace_node(NodeDocument("edge-1", (("tts", False, "Failed", ()),)))
    found = await lookup.capability("edge-1")
    assert found is not None
    assert {kind: (state.ready, state.reason) for kind, state in found.types.items()} == {"tts": (False, "Failed")}
    await writer.drop_node("edge-1")
    assert await lookup.capability("edge-1") is None


async def test_the_index_follows_a_changed_key_and_the_deletion_of_a_pool(client: Client) -> None:
    writer = await claimed_writer(client)
    await writer.replace_pool(pool("a", key="zh-en"))
    await writer.replace_pool(pool("a", key="zh-de"))
    assert await client.execute_command("HGETALL", KEYS.index) == {b"speech/zh-de": b"zh-en"}
    await writer.replace_pool(pool("a", key=None))
    assert await client.execute_command("HGETALL", KEYS.index) == {}
    await writer.replace_pool(pool("a", key="zh-de"))
    await client.execute_command("HSET", KEYS.index, "speech/zh-de", "another")
    await writer.drop_pool("zh-en")
    assert await client.execute_command("HGETALL", KEYS.index) == {b"speech/zh-de": b"another"}


async def test_a_deleted_pool_leaves_no_key(client: Client, lookup: Lookup) -> None:
    writer = await claimed_writer(client)
    await writer.replace_pool(pool("a"))
    await writer.drop_pool("zh-en")
    assert await dump_all(client) == {}
    answer = await lookup.pick("zh-en")
    assert isinstance(answer, NoMember)
    assert answer.reason is Reason.POOL_UNKNOWN


async def test_after_an_unknown_outcome_the_newer_write_wins(server: RedisServer, client: Client) -> None:
    await claimed_writer(client)
    hasty = connect(server.url, timeout=1)
    writer = make_writer(hasty)
    await writer.claim(4)
    server.pause()
    try:
        with pytest.raises(RetryableError):
            await writer.replace_pool(pool("old"))
    finally:
        server.resume()
    assert (await writer.check_drift({"zh-en": pool("old")}, {})).pools == {"zh-en"}
    await writer.replace_pool(pool("new"))
    assert await writer.check_drift({"zh-en": pool("new")}, {}) == NO_DRIFT
    await hasty.aclose()


async def test_a_killed_server_restarts_empty_and_is_filled_again(
    server: RedisServer, client: Client, lookup: Lookup
) -> None:
    writer = await claimed_writer(client)
    await writer.replace_pool(pool("a"))
    server.kill()
    with pytest.raises(RetryableError):
        await writer.replace_pool(pool("b"))
    server.start()
    with pytest.raises(TermNotClaimedError):
        await writer.replace_pool(pool("b"))
    await writer.claim(3)
    await writer.replace_pool(pool("b"))
    assert equals(pool("b"), await lookup.members("zh-en"))


async def test_a_wrong_password_is_rejected_and_not_in_the_error(server: RedisServer, client: Client) -> None:
    await client.execute_command("ACL", "SETUSER", "op", "reset", "on", ">right")
    wrong = connect(f"redis://op:wr0ng@127.0.0.1:{server.port}/0")
    with pytest.raises(RejectedError) as caught:
        await make_writer(wrong).claim(1)
    assert "wr0ng" not in str(caught.value)
    await wrong.aclose()
