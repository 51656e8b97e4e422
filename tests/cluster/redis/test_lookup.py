"""The look-up client against a real server, a replica, and a Redis Cluster (E2, E3, E4, E6)."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from redis.asyncio import Redis
from tests.support.redis_fixture_lookup import (
    KEYS,
    NO_DRIFT,
    chi_square,
    claimed_writer,
    expect_picked,
    names,
    node_of,
    pool,
    reason_of,
)
from tests.support.redis_fleet import until

from hotpool.lookup import Lookup, LookupUnavailableError, NoMember, Picked, Reason, SyncLookup
from hotpool.projection.connection.async_connection import Client, connect
from hotpool.projection.documents import NodeDocument, PoolDocument
from localfleet.redis_server import RedisServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Iterator

    from hotpool.projection.writer import RedisWriter

NODE = NodeDocument("edge-1", (("asr", True, None, ("fw", "fw-2")), ("tts", False, "Stopped", ())))
CHI_SQUARE = {100: 149.4, 19: 43.82, 14: 36.12}
"""Critical values at one in a thousand, by degrees of freedom."""


@pytest.fixture(scope="module")
def cluster_server() -> Iterator[RedisServer]:
    with RedisServer(cluster=True) as running:
        yield running


@pytest.fixture
async def writer(client: Client) -> RedisWriter:
    return await claimed_writer(client)


async def sweep(client: Client, count: int, exclude: Collection[str] = ()) -> Counter[str]:
    """Pick once with each of `count` chances spread evenly over [0, 1)."""
    chances = iter([(place + 0.5) / count for place in range(count)])
    lookup = Lookup(client, namespace="speech", chance=lambda: next(chances))
    return Counter([node_of(await lookup.pick("zh-en", exclude=exclude)) for _ in range(count)])


@pytest.mark.parametrize("excluded", [0, 1, 7, 19])
async def test_every_member_not_excluded_has_the_same_share_of_chances(
    client: Client, writer: RedisWriter, excluded: int
) -> None:
    await writer.replace_pool(pool(names(20), names(3, "suspect"), names(3, "draining")))
    exclude = sorted(names(20))[:excluded]
    shares = await sweep(client, 20 - excluded, [*exclude, *exclude, "unknown"])
    assert shares == Counter(names(20) - set(exclude))


@pytest.mark.parametrize(("size", "excluded"), [(20, 0), (20, 5), (101, 0)])
async def test_picks_are_uniform_by_chi_square_whatever_slice_a_member_is_in(
    client: Client, writer: RedisWriter, size: int, excluded: int
) -> None:
    """101 members are a slice of 100 and a slice of 1, which a pick by slice would choose half the time."""
    await writer.replace_pool(pool(names(size), names(3, "suspect"), names(3, "draining")))
    exclude = sorted(names(size))[3 : 3 + excluded]
    lookup = Lookup(client, namespace="speech", chance=random.Random(20261123).random)  # noqa: S311 - a fixed seed.
    answers = [await lookup.pick("zh-en", exclude=exclude) for _ in range(max(2000, 30 * size))]
    counts = Counter(map(node_of, answers))
    assert counts.keys() == names(size) - set(exclude)
    assert chi_square(counts.values()) < CHI_SQUARE[size - excluded - 1]


async def test_suspect_members_are_picked_last_and_uniformly(
    client: Client, writer: RedisWriter, lookup: Lookup
) -> None:
    await writer.replace_pool(pool(["edge-0"], names(4, "suspect"), ["d"]))
    assert node_of(await lookup.pick("zh-en")) == "edge-0"
    assert await sweep(client, 4, ["edge-0"]) == Counter(names(4, "suspect"))
    assert await sweep(client, 3, ["edge-0", "suspect-2"]) == Counter(names(4, "suspect") - {"suspect-2"})
    picked = await lookup.pick("zh-en", exclude=["edge-0"])
    assert isinstance(picked, Picked)
    assert (picked.state, picked.pool, picked.version) == ("Suspect", "zh-en", 1)


async def test_a_pick_without_a_node_returns_reason_and_counts(writer: RedisWriter, lookup: Lookup) -> None:
    assert reason_of(await lookup.pick("zh-en")) is Reason.POOL_UNKNOWN
    await writer.replace_pool(pool())
    assert reason_of(await lookup.pick("zh-en")) is Reason.EMPTY
    await writer.replace_pool(pool(draining=["d"]))
    assert reason_of(await lookup.pick("zh-en")) is Reason.ONLY_DRAINING
    await writer.replace_pool(pool(["a", "b"], ["s"], ["d"]))
    answer = await lookup.pick("zh-en", exclude=["a", "b", "s", "s", "d", "unknown"])
    assert isinstance(answer, NoMember)
    assert answer.reason is Reason.ALL_EXCLUDED
    counts = answer.counts
    assert (counts.members, counts.ready, counts.suspect, counts.draining, counts.excluded) == (4, 2, 1, 1, 3)


async def test_a_fleet_that_no_operator_has_written_is_told_from_an_unknown_pool(
    server: RedisServer, client: Client, writer: RedisWriter
) -> None:
    """Both clients, all ways to name a pool; also if someone deleted what an operator had written (E2)."""
    await writer.replace_pool(pool(["a"]))

    def reasons(namespace: str) -> set[Reason]:
        with SyncLookup.from_url(server.url, namespace=namespace) as lookup:
            found = [lookup.pick("none"), lookup.pick("none", reserve=60), lookup.pick(["none", "other"])]
            found += [lookup.pick_key("speech", "none"), lookup.pick_key("speech", ["none", "other"])]
            found += [lookup.pick("none", key="k"), lookup.pick("none", wait=0.01)]
        return set(map(reason_of, found))

    async def reasons_async(namespace: str) -> set[Reason]:
        lookup = Lookup(client, namespace=namespace)
        found = [await lookup.pick("none"), await lookup.pick_key("speech", "none")]
        return set(map(reason_of, [*found, await lookup.pick(["none", "other"])]))

    for namespace, reason in (("speech", Reason.POOL_UNKNOWN), ("another", Reason.FLEET_UNKNOWN)):
        assert await asyncio.to_thread(reasons, namespace) == await reasons_async(namespace) == {reason}
    another = Lookup(client, namespace="another")
    assert reason_of(await another.pick("none", max_age=60)) is Reason.STALE
    assert reason_of(await another.pick_key("speech", "none", max_age=60)) is Reason.STALE
    await client.execute_command("DEL", KEYS.meta)
    assert await reasons_async("speech") == {Reason.FLEET_UNKNOWN}
    lookup = Lookup(client, namespace="speech")
    assert node_of(await lookup.pick("zh-en")) == node_of(await lookup.pick_key("speech", "zh-en")) == "a"
    assert node_of(await lookup.pick_key("speech", ["none", "zh-en"])) == "a"
    await client.execute_command("SET", KEYS.meta, "of another type")
    assert await reasons_async("speech") == {Reason.FLEET_UNKNOWN}


async def test_a_draining_member_is_never_picked(writer: RedisWriter, lookup: Lookup) -> None:
    await writer.replace_pool(pool(["a"], ["s"], names(50, "draining")))
    picked = {node_of(await lookup.pick("zh-en")) for _ in range(50)}
    assert picked == {"a"}


async def test_readers_see_age_and_completeness(client: Client, writer: RedisWriter, lookup: Lookup) -> None:
    await writer.replace_pool(pool(["a"]))
    fresh = await lookup.pick("zh-en")
    assert (fresh.age_seconds, fresh.complete) == (None, False)
    await writer.stamp(complete=True)
    stamped = await lookup.pick("zh-en")
    assert stamped.complete
    assert stamped.age_seconds is not None
    assert 0 <= stamped.age_seconds < 5
    stamp = int(await client.execute_command("HGET", KEYS.meta, "stampMs"))
    await client.execute_command("HSET", KEYS.meta, "stampMs", str(stamp - 60_000))
    for answer in (await lookup.pick("zh-en"), await lookup.pick("none"), await lookup.members("zh-en")):
        assert answer.age_seconds is not None
        assert 60 <= answer.age_seconds < 65
    await client.execute_command("HSET", KEYS.meta, "stampMs", str(stamp + 60_000))
    assert (await lookup.pick("zh-en")).age_seconds == 0
    await writer.stamp(complete=False)
    assert not (await lookup.pick("zh-en")).complete


async def test_a_pool_is_found_by_generator_and_key_and_followed_when_it_is_replaced(
    writer: RedisWriter, lookup: Lookup
) -> None:
    unknown = await lookup.pick_key("speech", "zh-en")
    assert (reason_of(unknown), unknown.pool) == (Reason.POOL_UNKNOWN, "speech/zh-en")
    await writer.replace_pool(PoolDocument("first", "u1", "speech", "zh-en", frozenset("a"), frozenset(), frozenset()))
    assert node_of(await lookup.pick_key("speech", "zh-en")) == "a"
    await writer.replace_pool(PoolDocument("first", "u1", "speech", "zh-de", frozenset("a"), frozenset(), frozenset()))
    assert reason_of(await lookup.pick_key("speech", "zh-en")) is Reason.POOL_UNKNOWN
    await writer.replace_pool(PoolDocument("second", "u2", "speech", "zh-en", frozenset("b"), frozenset(), frozenset()))
    assert node_of(await lookup.pick_key("speech", "zh-en")) == "b"
    await writer.drop_pool("second")
    assert reason_of(await lookup.pick_key("speech", "zh-en")) is Reason.POOL_UNKNOWN
    assert reason_of(await lookup.pick_key("speech", "zh-en", exclude=["b"])) is Reason.POOL_UNKNOWN


async def test_the_smallest_and_the_largest_chance_draw_the_first_and_the_last_member(
    client: Client, writer: RedisWriter
) -> None:
    for size in (1, 2, 3, 5, 9, 64, 65, 1200):
        await writer.replace_pool(pool(names(size)))
        ring = await client.execute_command("ZRANGE", KEYS.pool("zh-en")[1], 0, -1)
        for chance, node in ((0.0, ring[0]), (1 - 2**-53, ring[-1])):
            lookup = Lookup(client, namespace="speech", chance=lambda chance=chance: chance)  # type: ignore[misc]
            assert node_of(await lookup.pick("zh-en")).encode() == node
            assert node_of(await lookup.pick("zh-en", strategy="least-loaded")) in names(size)


async def test_a_pick_is_one_round_trip(client: Client, writer: RedisWriter, lookup: Lookup) -> None:
    await writer.replace_pool(pool(names(5)))
    await writer.stamp(complete=True)
    await lookup.pick_key("speech", "zh-en")
    await client.execute_command("CONFIG", "RESETSTAT")
    for _ in range(5):
        await lookup.pick("zh-en", exclude=["edge-1"])
        await lookup.pick_key("speech", "zh-en")
        await lookup.pick("zh-en", key="user-1", max_age=60)
    stats = await client.execute_command("INFO", "commandstats")
    assert stats["cmdstat_fcall_ro"]["calls"] == 15
    assert stats["cmdstat_hmget"]["calls"] == 30  # age, and the facts of the pool; the index is not read
    assert stats["cmdstat_hget"]["calls"] == 15  # ejected services
    await writer.drop_pool("zh-en")
    await lookup.pick_key("speech", "zh-en")
    await client.execute_command("CONFIG", "RESETSTAT")
    await lookup.pick_key("speech", "zh-en")
    stats = await client.execute_command("INFO", "commandstats")
    assert (stats["cmdstat_fcall_ro"]["calls"], stats["cmdstat_hget"]["calls"]) == (1, 1)


async def test_a_pick_that_reserves_is_one_round_trip(client: Client, writer: RedisWriter, lookup: Lookup) -> None:
    await writer.replace_pool(pool(names(5)))
    await lookup.pick_key("speech", "zh-en")
    await client.execute_command("CONFIG", "RESETSTAT")
    for _ in range(5):
        await lookup.pick_key("speech", "zh-en", strategy="least-loaded", reserve=5)
    stats = await client.execute_command("INFO", "commandstats")
    assert stats["cmdstat_fcall"]["calls"] == 5
    assert "cmdstat_fcall_ro" not in stats


async def test_a_nodes_capability_is_returned_by_type(writer: RedisWriter, lookup: Lookup) -> None:
    assert await lookup.capability("edge-1") is None
    await writer.replace_node(NODE)
    await writer.stamp(complete=True)
    found = await lookup.capability("edge-1")
    assert found is not None
    assert found.complete
    types = {kind: (state.ready, state.reason, state.services) for kind, state in found.types.items()}
    assert types == {"asr": (True, None, ("fw", "fw-2")), "tts": (False, "Stopped", ())}


async def test_a_look_up_without_a_valid_reply_fails_instead_of_returning_no_member(
    server: RedisServer, client: Client, writer: RedisWriter
) -> None:
    await writer.replace_pool(pool(["a"]))
    secret = f"redis://default:s3cret@127.0.0.1:{server.port}/0"
    async with Lookup.from_url(server.url, namespace="speech") as lookup:
        await client.execute_command("DEL", KEYS.pool("zh-en")[1])
        await client.execute_command("SET", KEYS.pool("zh-en")[1], "garbage")
        with pytest.raises(LookupUnavailableError, match="WRONGTYPE"):
            await lookup.pick("zh-en")
        await client.execute_command("FUNCTION", "FLUSH")
        with pytest.raises(LookupUnavailableError, match="has an operator reached"):
            await lookup.pick("zh-en")
        server.kill()
        with pytest.raises(LookupUnavailableError):
            await lookup.pick("zh-en")
        async with Lookup.from_url(secret, namespace="speech") as other:
            with pytest.raises(LookupUnavailableError) as caught:
                await other.pick("zh-en")
        assert "s3cret" not in str(caught.value)


async def test_a_replica_answers_look_ups(server: RedisServer, client: Client) -> None:
    await client.execute_command("CONFIG", "SET", "repl-diskless-sync-delay", "0")
    patient = connect(server.url, timeout=10)
    with RedisServer(options=("--replicaof", "127.0.0.1", str(server.port))) as replica:
        # Before its first load a replica counts for WAIT, and has no functions.
        await until(lambda: b"master_link_status:up" in replica.ask("INFO", "replication"))
        writer = await claimed_writer(patient)
        await writer.replace_pool(pool(["a"]))
        await writer.replace_node(NodeDocument("a", (), "asr|fw|6007||fd00::7"))
        await writer.stamp(complete=True)
        assert await patient.execute_command("WAIT", 1, 8000) == 1
        async with Lookup.from_url(replica.url, namespace="speech") as lookup:
            answers = [await lookup.pick("zh-en", strategy=word, max_age=60) for word in ("uniform", "least-loaded")]
            answers.append(await lookup.pick("zh-en", key="user-1"))
            assert expect_picked(await lookup.pick("zh-en", types=["asr"])).url("asr") == "http://[fd00::7]:6007"
            with pytest.raises(LookupUnavailableError, match="replica"):
                await lookup.pick("zh-en", reserve=60)
    await patient.aclose()
    assert list(map(node_of, answers)) == ["a", "a", "a"]
    assert all(answer.complete for answer in answers)


@pytest.mark.parametrize("cluster_client", [False, True])
async def test_the_main_path_runs_in_cluster_mode(cluster_server: RedisServer, *, cluster_client: bool) -> None:
    cluster_server.ask("FLUSHALL")
    cluster_server.ask("FUNCTION", "FLUSH")
    client = connect(cluster_server.url, cluster=cluster_client)
    pools = {"zh-en": pool(names(20)), "large": pool(names(1200), name="large")}
    writer = await claimed_writer(client)
    for document in pools.values():
        await writer.replace_pool(document)
    await writer.replace_node(NODE)
    await writer.stamp(complete=True)
    assert await writer.check_drift(pools, {"edge-1": NODE}) == NO_DRIFT
    async with Lookup.from_url(cluster_server.url, namespace="speech", cluster=cluster_client) as lookup:
        assert node_of(await lookup.pick_key("speech", "large")) in names(1200)
        assert await lookup.capability("edge-1") is not None
        made = await lookup.pick("zh-en", strategy="least-loaded", reserve=60)
        assert isinstance(made, Picked)
        assert made.reservation
        assert await lookup.release(made.reservation)
    await writer.drop_pool("zh-en")
    await writer.drop_node("edge-1")
    assert await writer.check_drift({"large": pools["large"]}, {}) == NO_DRIFT
    slots = {cluster_server.ask("CLUSTER", "KEYSLOT", key) for key in (KEYS.meta, KEYS.index, *KEYS.pool("large"))}
    assert len(slots) == 1
    await client.aclose()


async def test_functions_access_only_the_keys_passed_to_them(
    server: RedisServer, client: Client, writer: RedisWriter, lookup: Lookup
) -> None:
    calls = 0
    async with Redis.from_url(server.url) as admin, admin.monitor() as monitor:
        await writer.claim(3)
        for document in (pool(names(9), ["s"]), pool(names(1200))):
            await writer.replace_pool(document)
        await writer.replace_node(NODE)
        await writer.stamp(complete=True)
        await lookup.pick_key("speech", "zh-en", exclude=["edge-1"])
        await lookup.pick("zh-en", key="user-1")
        made = await lookup.pick("zh-en", strategy="least-loaded", reserve=60, max_age=60)
        assert isinstance(made, Picked)
        assert made.reservation
        await lookup.renew(made.reservation, 60)
        await lookup.report_load({"edge-1": 2}, source="a", seconds=60)
        await lookup.release(made.reservation)
        await lookup.members("zh-en")
        await lookup.capability("edge-1")
        await writer.check_drift({"zh-en": pool(names(1200))}, {"edge-1": NODE})
        await writer.drop_index(["a/b"])
        await writer.drop_pool("zh-en")
        await writer.drop_node("edge-1")
        await client.execute_command("ECHO", "end")
        passed: set[str] = set()
        inside: set[str] = set()
        async for words, by_script in commands(monitor):
            if words[0] in {"FCALL", "FCALL_RO"}:
                calls += 1
                passed = set(words[3 : 3 + int(words[2])])
            elif by_script:
                accessed = {word for word in words[1:] if word.startswith("{hotpool:")}
                assert accessed <= passed
                inside.add(words[0].upper())
    assert calls > 20
    assert {"ZADD", "RENAME", "HSET", "ZRANGE", "HDEL", "SREM", "ZINCRBY", "ZMSCORE", "ZRANGEBYSCORE"} <= inside
    assert not inside & {"KEYS", "SCAN"}


async def commands(monitor: Any) -> AsyncIterator[tuple[list[str], bool]]:
    """Yield the words of each executed command, and True if a function ran it, up to `ECHO end`."""
    async for line in monitor.listen():
        words = line["command"].split(" ")
        if words == ["ECHO", "end"]:
            return
        yield words, line["client_type"] == "lua"
