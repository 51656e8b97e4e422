"""Garbage of every type in each key, extreme names and implausible numbers (E1, E4, E6).

No reader gets a wrong result, no function of the writer fails, and one round repairs everything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from tests.support.leadership import FixedLeadership
from tests.support.redis_fixture_lookup import KEYS, NO_DRIFT, TRANSITION, claimed_writer, expect_picked, names, node_of

from hotpool.errors import RetryableError
from hotpool.lookup import Lookup, LookupUnavailableError, NoMember, Picked, Reason
from hotpool.projection.documents import NodeDocument, PoolDocument
from hotpool.projection.redis_errors import TermNotClaimedError
from hotpool.projection.writer import RedisWriter

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from hotpool.projection.connection.async_connection import Client

FACTS, READY, SUSPECT, DRAINING = KEYS.pool("zh-en")
HUGE = "9" * 15


def pool(name: str, count: int = 9) -> PoolDocument:
    return PoolDocument(name, f"u-{name}", "speech", name, names(count), frozenset("s"), frozenset("d"))


POOLS = {"zh-en": pool("zh-en"), "large": pool("large", 1200)}
NODE = NodeDocument("edge-1", (("asr", True, None, ("fw",)),))
EVERY_KEY = {
    "meta": KEYS.meta,
    "pools": KEYS.pools,
    "nodes": KEYS.nodes,
    "index": KEYS.index,
    "facts": FACTS,
    "ready": READY,
    "suspect": SUSPECT,
    "draining": DRAINING,
    "node": KEYS.node("edge-1"),
    "history": KEYS.history("edge-1"),
    "load": KEYS.load[0],
    "entries": KEYS.load[1],
    "expiries": KEYS.load[2],
}
TYPES: dict[str, tuple[str, ...]] = {
    "string": ("SET", "garbage"),
    "list": ("RPUSH", "garbage"),
    "set": ("SADD", "garbage"),
    "hash": ("HSET", "garbage", "garbage"),
    "zset": ("ZADD", "1", "garbage"),
    "stream": ("XADD", "*", "garbage", "garbage"),
}
OURS = dict.fromkeys(EVERY_KEY, "zset") | dict.fromkeys(("meta", "index", "facts", "node", "entries"), "hash")
OURS |= {"pools": "set", "nodes": "set", "history": "list"}
LOOKUPS: dict[str, Callable[[Lookup], Awaitable[Any]]] = {
    "pick": lambda lookup: lookup.pick("zh-en"),
    "exclude": lambda lookup: lookup.pick("zh-en", exclude=[*names(9)]),
    "least loaded": lambda lookup: lookup.pick("zh-en", strategy="least-loaded"),
    "affinity": lambda lookup: lookup.pick("zh-en", key="user-1"),
    "bounded": lambda lookup: lookup.pick("zh-en", max_age=60),
    "reserve": lambda lookup: lookup.pick("zh-en", reserve=60),
    "by key": lambda lookup: lookup.pick_key("speech", "zh-en"),
    "members": lambda lookup: lookup.members("zh-en"),
    "capability": lambda lookup: lookup.capability("edge-1"),
    "transitions": lambda lookup: lookup.transitions("edge-1"),
    "renew": lambda lookup: lookup.renew("none", 60),
    "release": lambda lookup: lookup.release("none"),
    "report": lambda lookup: lookup.report_load({"edge-1": 1}, source="a", seconds=60),
}


@pytest.fixture
async def writer(client: Client) -> RedisWriter:
    """A writer of term 3 that has written all pools, the node and a stamp."""
    writer = await claimed_writer(client)
    for document in POOLS.values():
        await writer.replace_pool(document)
    await writer.replace_node(NODE)
    await writer.append_history("edge-1", [TRANSITION])
    await writer.stamp(complete=True)
    return writer


@dataclass
class Results:
    """Results of all look-ups, and the names of the failed ones."""

    values: dict[str, Any]
    failed: set[str]


async def run_all(lookup: Lookup) -> Results:
    results = Results({}, set())
    for name, ask in LOOKUPS.items():
        try:
            results.values[name] = await ask(lookup)
        except LookupUnavailableError:
            results.failed.add(name)
    return results


def is_plausible(name: str, answer: Any) -> bool:
    """Return True if a result is correct, or states that nothing is known."""
    if isinstance(answer, Picked):
        return answer.node in (["s"] if name == "exclude" else names(9)) and answer.version == 1
    if isinstance(answer, NoMember):
        return answer.reason is Reason.STALE and not answer.complete
    if name == "members":
        return bool(answer.ready == tuple(sorted(names(9))))
    if name == "capability":
        return bool(answer.types["asr"].services == ("fw",))
    if name == "transitions":
        return [entry.after for entry in answer] == ["Live"]
    return not answer


async def repair(writer: RedisWriter) -> None:
    """Write what differs, as the operator does."""
    await writer.claim(3)
    drift = await writer.check_drift(POOLS, {"edge-1": NODE})
    for name in drift.pools:
        await writer.replace_pool(POOLS[name])
    for name in drift.stray_pools:
        await writer.drop_pool(name)
    await writer.drop_index(drift.stray_index)
    if drift.nodes:
        await writer.replace_node(NODE)
    for name in drift.stray_nodes:
        await writer.drop_node(name)
    await writer.stamp(complete=True)


async def check_repaired(writer: RedisWriter, lookup: Lookup) -> None:
    """Check that one round repairs everything and writes succeed. The history returns with the next transition."""
    await repair(writer)
    assert await writer.check_drift(POOLS, {"edge-1": NODE}) == NO_DRIFT
    results = await run_all(lookup)
    assert results.failed <= {"transitions"}
    assert results.values["members"].ready == tuple(sorted(names(9)))
    assert results.values["members"].complete
    assert node_of(results.values["bounded"]) in names(9)
    assert node_of(results.values["by key"]) in names(9)
    assert results.values["capability"].types["asr"].ready
    await writer.replace_pool(POOLS["large"])
    await writer.replace_node(NODE)
    await writer.append_history("edge-1", [TRANSITION])
    assert [entry.after for entry in await lookup.transitions("edge-1")] == ["Live"]
    assert await writer.check_drift(POOLS, {"edge-1": NODE}) == NO_DRIFT


@pytest.mark.parametrize("key", EVERY_KEY)
@pytest.mark.parametrize("kind", TYPES)
async def test_garbage_of_another_type_misleads_no_reader_and_one_round_repairs_it(
    client: Client, writer: RedisWriter, lookup: Lookup, key: str, kind: str
) -> None:
    await client.execute_command("DEL", EVERY_KEY[key])
    await client.execute_command(TYPES[kind][0], EVERY_KEY[key], *TYPES[kind][1:])
    if OURS[key] != kind:
        results = await run_all(lookup)
        assert [name for name, answer in results.values.items() if not is_plausible(name, answer)] == []
        assert results.failed or key not in {"facts", "ready", "suspect", "draining", "index", "node", "history"}
    await check_repaired(writer, lookup)


WRITES: dict[str, Callable[[RedisWriter], Awaitable[Any]]] = {
    "claim": lambda writer: writer.claim(3),
    "replace": lambda writer: writer.replace_pool(pool("zh-en", 40)),
    "change": lambda writer: writer.replace_pool(pool("zh-en", 10)),
    "stage and swap": lambda writer: writer.replace_pool(pool("large", 2000)),
    "drop pool": lambda writer: writer.drop_pool("zh-en"),
    "drop index": lambda writer: writer.drop_index(["speech/none"]),
    "node": lambda writer: writer.replace_node(NODE),
    "history": lambda writer: writer.append_history("edge-1", [TRANSITION]),
    "drop node": lambda writer: writer.drop_node("edge-1", delete_history=False),
    "stamp": lambda writer: writer.stamp(complete=True),
    "drift check": lambda writer: writer.check_drift(POOLS, {"edge-1": NODE}),
}


@pytest.mark.parametrize("key", EVERY_KEY)
async def test_garbage_makes_no_function_of_the_writer_fail(client: Client, writer: RedisWriter, key: str) -> None:
    for kind, (command, *words) in TYPES.items():
        for name, write in WRITES.items():
            await repair(writer)
            await client.execute_command("DEL", EVERY_KEY[key])
            await client.execute_command(command, EVERY_KEY[key], *words)
            try:
                await write(writer)
            except TermNotClaimedError:
                assert key == "meta", (kind, name)


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("place", [0, 1], ids=["a set with members", "a set without"])
async def test_garbage_in_the_staged_keys_of_a_large_pool_never_becomes_members(
    client: Client, writer: RedisWriter, lookup: Lookup, kind: str, place: int
) -> None:
    wanted = PoolDocument("large", "u-large", "speech", "large", names(1200, "new"), frozenset(), frozenset())
    key = KEYS.staged("large", 3, 3)[place]  # key of the first write after the two of the fixture
    await client.execute_command(TYPES[kind][0], key, *TYPES[kind][1:])
    try:
        await writer.replace_pool(wanted)
    except RetryableError:
        assert place == 1 or kind == "zset"
        assert (await lookup.members("large")).ready == tuple(sorted(names(1200)))
        await writer.replace_pool(wanted)
    found = await lookup.members("large")
    assert (found.ready, found.suspect, found.draining) == (tuple(sorted(wanted.ready)), (), ())


INVALID_VALUES: dict[str, tuple[str, ...]] = {
    "term": ("HSET", KEYS.meta, "term", HUGE),
    "version": ("HSET", FACTS, "version", HUGE),
    "version of a node": ("HSET", KEYS.node("edge-1"), ".facts", f"3 {HUGE} {NODE.digest}"),
    "term of a pool": ("HSET", FACTS, "term", HUGE),
    "stamp": ("HSET", KEYS.meta, "stampMs", HUGE),
    "claim": ("HSET", KEYS.meta, "claimMs", HUGE),
    "count": ("HSET", FACTS, "ready", HUGE),
    "long": ("HSET", FACTS, "version", "9" * 400),
    "negative": ("HSET", FACTS, "version", "-5"),
    "no UTF-8 in the index": ("HSET", KEYS.index, b"\xff\xfe", b"\xff"),  # type: ignore[dict-item]
    "no UTF-8 in a value of the index": ("HSET", KEYS.index, "speech/zh-en", b"\xff"),  # type: ignore[dict-item]
    "no UTF-8 in pools": ("SADD", KEYS.pools, b"\xff\xfe"),  # type: ignore[dict-item]
    "no UTF-8 in nodes": ("SADD", KEYS.nodes, b"\xff\xfe"),  # type: ignore[dict-item]
    "no UTF-8 among members": ("ZADD", READY, "1", b"\xff\xfe"),  # type: ignore[dict-item]
    "no UTF-8 in facts": ("HSET", FACTS, "digest", b"\xff", "uid", b"\xfe"),  # type: ignore[dict-item]
    "no UTF-8 in a node": ("HSET", KEYS.node("edge-1"), b"\xff", b"\xff"),  # type: ignore[dict-item]
}


@pytest.mark.parametrize("name", INVALID_VALUES)
async def test_implausible_numbers_and_invalid_utf8_are_repaired_without_other_harm(
    client: Client, writer: RedisWriter, lookup: Lookup, name: str
) -> None:
    for _ in range(3):
        await client.execute_command(*INVALID_VALUES[name])
        await check_repaired(writer, lookup)
    assert (await lookup.members("zh-en")).version in range(1, 100)
    assert await client.execute_command("HGET", KEYS.meta, "term") == b"3"


async def test_the_next_leader_repairs_an_implausible_version(
    client: Client, writer: RedisWriter, lookup: Lookup
) -> None:
    assert writer
    await client.execute_command("HSET", FACTS, "version", HUGE)
    successor = RedisWriter(client, FixedLeadership(), namespace="speech")
    await successor.claim(4)
    await successor.check_drift(POOLS, {"edge-1": NODE})
    await successor.replace_pool(pool("zh-en", 3))
    await successor.replace_pool(pool("zh-en", 4))
    assert await successor.check_drift(POOLS | {"zh-en": pool("zh-en", 4)}, {"edge-1": NODE}) == NO_DRIFT
    assert (await lookup.members("zh-en")).version in range(1, 100)


async def test_thousands_of_stray_index_fields_are_deleted(client: Client, writer: RedisWriter, lookup: Lookup) -> None:
    fields = [word for number in range(20_000) for word in (f"speech/{number}", "none")]
    await client.execute_command("HSET", KEYS.index, *fields)
    await check_repaired(writer, lookup)
    assert await client.execute_command("HLEN", KEYS.index) == 2


async def test_a_pair_is_not_reported_unknown_and_complete_when_a_rebuild_ends_in_between(
    client: Client, writer: RedisWriter
) -> None:
    """The existence of a pool and the completeness of the projection are read at one point in time."""
    await client.execute_command("FLUSHALL")
    send = client.execute_command
    rebuilt = False

    class Slow:
        """Delays the first reply until the projection is rebuilt."""

        connection_pool = client.connection_pool  # type: ignore[union-attr]

        async def execute_command(self, *words: Any) -> Any:
            nonlocal rebuilt
            found = await send(*words)
            if not rebuilt:
                rebuilt = True
                await repair(writer)
            return found

    lookup = Lookup(Slow(), namespace="speech")  # type: ignore[arg-type]
    answer = await lookup.pick_key("speech", "zh-en")
    assert isinstance(answer, NoMember)
    assert (answer.reason, answer.complete, answer.age_seconds) == (Reason.FLEET_UNKNOWN, False, None)
    assert expect_picked(await lookup.pick_key("speech", "zh-en")).complete


async def test_the_longest_names_are_projected_found_and_deleted(
    client: Client, writer: RedisWriter, lookup: Lookup
) -> None:
    label = "a" * 63
    longest = f"{label}.{label}.{label}.{label[:61]}"
    assert len(longest) == 253
    members = frozenset(f"{longest[:-4]}{number:04}" for number in range(1200))
    small, large = (PoolDocument(longest[:-1] + end, "u", longest, f"k{end}" * 100, chosen, frozenset(), frozenset())
                    for end, chosen in (("s", frozenset(sorted(members)[:9])), ("l", members)))  # fmt: skip
    node = NodeDocument(longest, (("t" * 253, True, None, ("i" * 253,)),))
    for document in (small, large):
        await writer.replace_pool(document)
    await writer.replace_node(node)
    await writer.append_history(longest, [TRANSITION])
    wanted = POOLS | {small.name: small, large.name: large}
    assert await writer.check_drift(wanted, {"edge-1": NODE, longest: node}) == NO_DRIFT
    assert node_of(await lookup.pick_key(longest, large.key or "")) in members
    assert node_of(await lookup.pick(small.name, exclude=sorted(members)[:8])) == sorted(members)[8]
    assert frozenset((await lookup.members(large.name)).ready) == members
    assert (await lookup.capability(longest)) is not None
    await check_repaired(writer, lookup)
    assert not [key for key in await client.execute_command("KEYS", "*") if longest[:60].encode() in key]
