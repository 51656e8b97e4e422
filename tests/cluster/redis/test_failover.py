"""Failovers of real server groups: the projection continues at the new master, and is never a mix (E1, E2, E4, E5)."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from tests.support.dispatch_life import NODES, begin, expect_drain, expect_ejection, expect_life, expect_limits
from tests.support.leadership import FixedLeadership
from tests.support.redis_fleet import RedisFleet, holds, leading, pool_of, redis_fleet, running, until

from hotpool.errors import RetryableError
from hotpool.lookup import Lookup, LookupUnavailableError, NoMember, Picked, SyncLookup
from hotpool.projection.connection.async_connection import connect
from hotpool.projection.keys import FleetKeys
from hotpool.projection.writer import RedisWriter
from localfleet.redis_groups import SERVICE, ClusterGroup, SentinelGroup, is_master
from localfleet.redis_server import HOST

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from localfleet.redis_server import RedisServer

KEYS = FleetKeys("hotpool", "speech")
EDGES = [f"edge-{number:03}" for number in range(1200)]
NUMBERS = range(100)


@pytest.fixture(scope="module")
def cluster() -> Iterator[ClusterGroup]:
    """Three masters and three replicas. Only the shard of our keys has failed over when a test ends."""
    with ClusterGroup() as group:
        yield group


@pytest.fixture
def sentinel_group() -> Iterator[SentinelGroup]:
    with SentinelGroup() as group:
        yield group


def members_of(number: int) -> frozenset[str]:
    """Return the members of a document by number: a window of nodes, so a mix of two documents equals none."""
    return frozenset(EDGES[number : number + 600])


class Reader:
    """Reads members until it is stopped, and collects them."""

    def __init__(self, lookup: Lookup) -> None:
        self.lookup = lookup
        self.stopped = False
        self.seen: set[frozenset[str]] = set()

    async def run(self) -> None:
        while not self.stopped:
            try:
                members = await self.lookup.members("zh-en")
            except LookupUnavailableError:
                await asyncio.sleep(0.05)
                continue
            if members.version is not None:
                self.seen.add(frozenset(members.ready))
            await asyncio.sleep(0.001)


@asynccontextmanager
async def reading(*lookups: Lookup) -> AsyncIterator[list[Reader]]:
    """Run readers in the block. Each must see only whole documents."""
    readers = [Reader(lookup) for lookup in lookups]
    tasks = [asyncio.create_task(reader.run()) for reader in readers]
    try:
        yield readers
    finally:
        for reader in readers:
            reader.stopped = True
        await asyncio.gather(*tasks)
    whole = {members_of(number) for number in NUMBERS} | {frozenset({"edge-1", "edge-2"}), frozenset({"edge-3"})}
    assert all(reader.seen <= whole for reader in readers)


@asynccontextmanager
async def waiting(fleet: RedisFleet, *lookups: Lookup | SyncLookup) -> AsyncIterator[None]:
    """Let each client wait for a pool that is made at the end of the block, after a failover (E10)."""
    begun = False

    async def wait(lookup: Lookup | SyncLookup) -> Picked | NoMember:
        while True:
            try:
                if isinstance(lookup, Lookup):
                    return await lookup.pick("late", wait=60)
                return await asyncio.to_thread(lookup.pick, "late", wait=60)
            except LookupUnavailableError:  # a busy machine answers the first pick late
                if begun:
                    raise

    picks = [asyncio.create_task(wait(lookup)) for lookup in lookups]
    await until(lambda: all(map(waits, lookups)))
    begun = True
    yield
    assert not any(pick.done() for pick in picks)
    fleet.set_pool(replace(pool_of("edge-1"), name="late", uid="u2", key="late"))
    assert [getattr(found, "node", found) for found in await asyncio.gather(*picks)] == ["edge-1"] * len(picks)


def waits(lookup: Lookup | SyncLookup) -> bool:
    """Return True if the client has registered its waiting pick."""
    return bool(lookup._room._position)  # noqa: SLF001 - nothing outside shows it.


async def change(fleet: RedisFleet, numbers: range) -> None:
    for number in numbers:
        fleet.set_pool(pool_of(*members_of(number)))
        await asyncio.sleep(0.01)


async def returns_document(lookup: Lookup, number: int) -> bool:
    try:
        return frozenset((await lookup.members("zh-en")).ready) == members_of(number)
    except LookupUnavailableError:
        return False


async def test_a_cluster_accepts_whole_documents_and_changes(cluster: ClusterGroup) -> None:
    client = connect(cluster.url, cluster=True)
    lookup = Lookup.from_url(cluster.url, namespace="speech", cluster=True)
    async with lookup, reading(lookup) as readers, running(client) as fleet:
        await change(fleet, range(30))
        assert fleet.healthy
        await until(lambda: returns_document(lookup, 29))
    assert len(readers[0].seen) > 3
    shard = cluster.shard_of(KEYS.meta)
    for server in cluster.masters:
        found = server.ask("DBSIZE")
        assert found == b":0\r\n" if server not in shard else found != b":0\r\n"


async def test_reservations_reports_and_drains_on_a_cluster(cluster: ClusterGroup) -> None:
    client, (holder, _) = connect(cluster.url, cluster=True), cluster.shard_of(KEYS.meta)
    holder.ask("FLUSHALL")
    async with Lookup.from_url(cluster.url, namespace="speech", cluster=True) as lookup:
        await expect_life(client, lookup)
    holder.ask("FLUSHALL")
    with SyncLookup.from_url(cluster.url, namespace="speech", cluster=True) as blocking:
        await expect_life(client, blocking)
    holder.ask("FLUSHALL")
    await client.aclose()


async def test_an_unreachable_other_shard_does_not_affect_the_projection(cluster: ClusterGroup) -> None:
    holder, _ = cluster.shard_of(KEYS.meta)
    shards = zip(cluster.masters, cluster.replicas, strict=True)
    others = next(shard for shard in shards if holder not in shard)
    client = connect(holder.url, cluster=True, timeout=1)
    try:
        for server in others:
            await asyncio.to_thread(server.kill)
        async with running(client) as fleet:
            holder.ask("FUNCTION", "FLUSH")
            fleet.set_pool(pool_of("edge-3"))
            await until(lambda: holds(holder, "edge-3"))
            assert fleet.healthy
    finally:
        for server in others:
            await asyncio.to_thread(server.start)
    await until(lambda: all(b"cluster_state:ok" in server.ask("CLUSTER", "INFO") for server in cluster.servers))


async def test_the_projection_recovers_at_a_replica_that_missed_writes_and_a_claim(cluster: ClusterGroup) -> None:
    master, replica = cluster.shard_of(KEYS.meta)
    seed = next(server for server in cluster.masters if server not in {master, replica})
    client = connect(seed.url, cluster=True, timeout=1)
    lookup = Lookup.from_url(seed.url, namespace="speech", cluster=True)
    async with lookup, reading(lookup):
        former = redis_fleet(client)
        async with leading(former):
            await change(former, range(5))
            await until(lambda: returns_document(lookup, 4))
        await until(lambda: acknowledged(master))
        replica.pause()
        late = connect(seed.url, cluster=True, timeout=1)
        assert await RedisWriter(late, FixedLeadership(), namespace="speech").claim(3, "cluster-1") > 3
        await late.aclose()
        await recovers(redis_fleet(client, term=9), lookup, master, replica)
        await client.aclose()


async def recovers(fleet: RedisFleet, lookup: Lookup, master: RedisServer, replica: RedisServer) -> None:
    """Lead with a term that the replica misses, fail over to it, and later follow the old master as its replica."""
    fleet.set_pool(pool_of(*members_of(4)))
    async with leading(fleet):
        assert b"\r\n9\r\n" in master.ask("HGET", KEYS.meta, "term")
        await change(fleet, range(5, 20))
        blocking = SyncLookup.from_url(master.url, namespace="speech", cluster=True, timeout=1)
        async with waiting(fleet, lookup, blocking):
            await asyncio.to_thread(master.kill)
            replica.resume()
            writing = asyncio.create_task(change(fleet, range(20, 40)))
            await until(lambda: is_master(replica))
            await writing
            await until(lambda: fleet.healthy)
            await until(lambda: returns_document(lookup, 39))
        await asyncio.to_thread(blocking.close)
        assert b"\r\n9\r\n" in replica.ask("HGET", KEYS.meta, "term")
        await asyncio.to_thread(master.start)
        await until(lambda: b"role:slave" in master.ask("INFO", "replication"))
        await change(fleet, range(40, 50))
        await until(lambda: fleet.healthy)
        await until(lambda: returns_document(lookup, 49))


def acknowledged(master: RedisServer) -> bool:
    """Return True if the replica has all writes of the master."""
    lines = dict(line.split(b":", 1) for line in master.ask("INFO", "replication").split(b"\r\n") if b":" in line)
    return b"slave0" in lines and lines[b"master_repl_offset"] in lines[b"slave0"]


async def test_the_projection_continues_at_the_new_master_of_a_sentinel(sentinel_group: SentinelGroup) -> None:
    url, sentinels = f"redis://{SERVICE}/0", [f"127.0.0.1:{sentinel_group.sentinel.port}"]
    client = connect(url, sentinels=sentinels, timeout=1)
    replica = Lookup.from_url(sentinel_group.replica.url, namespace="speech")
    reader = Lookup(connect(url, sentinels=sentinels, timeout=1, read_retries=1), namespace="speech")
    blocking = SyncLookup.from_url(url, namespace="speech", sentinels=sentinels, timeout=1)
    async with replica, reader, reading(reader, replica) as readers, running(client) as fleet:
        await change(fleet, range(20))
        assert fleet.healthy
        async with waiting(fleet, reader, blocking):
            await asyncio.to_thread(sentinel_group.master.kill)
            writing = asyncio.create_task(change(fleet, range(20, 40)))
            await until(lambda: is_master(sentinel_group.replica))
            await writing
            await until(lambda: fleet.healthy)
            await until(lambda: returns_document(reader, 39))
            await until(lambda: returns_document(replica, 39))
        await asyncio.to_thread(blocking.close)
        assert all(len(one.seen) > 1 for one in readers)


async def test_reservations_and_reports_survive_a_failover(sentinel_group: SentinelGroup) -> None:
    """Reservations that the replica had acknowledged are there; a drain does not trust its ledger."""
    url, sentinels = f"redis://{SERVICE}/0", [f"127.0.0.1:{sentinel_group.sentinel.port}"]
    client = connect(url, sentinels=sentinels, timeout=1)
    async with Lookup.from_url(url, namespace="speech", sentinels=sentinels, timeout=1) as lookup:
        writer = await begin(client)
        held = await expect_limits(writer, lookup)
        await lookup.report_failure(held[0])
        await until(lambda: acknowledged(sentinel_group.master))
        await until(lambda: has_age(writer))
        await asyncio.to_thread(sentinel_group.master.kill)
        await until(lambda: is_master(sentinel_group.replica))
        await until(lambda: reads(lookup))
        assert (await writer.read_ledger(0, [])).age == 0
        assert [item.node for item in await writer.ejections()] == [held[0].node]
        await lookup.report_success(held[0])
        first, *others = held
        assert (await writer.stamp(complete=True)).slots == {name: {"fw": 2} for name in NODES}
        await expect_ejection(writer, lookup, first)
        await expect_drain(writer, lookup, others)
    await client.aclose()


async def has_age(writer: RedisWriter) -> bool:
    return (await writer.read_ledger(0, [])).age > 0


async def reads(lookup: Lookup) -> bool:
    try:
        await lookup.ejections()
    except LookupUnavailableError:
        return False
    return True


async def test_the_operator_leaves_a_demoted_master_for_the_new_one(sentinel_group: SentinelGroup) -> None:
    client = connect(f"redis://{SERVICE}/0", sentinels=[f"127.0.0.1:{sentinel_group.sentinel.port}"], timeout=1)
    async with running(client) as fleet:
        await until(lambda: sentinel_group.sentinel.ask("SENTINEL", "FAILOVER", SERVICE)[:1] == b"+")
        await until(lambda: is_master(sentinel_group.replica))
        sentinel_group.master.ask("REPLICAOF", HOST, str(sentinel_group.replica.port))  # a sentinel does so after 8 s
        await until(lambda: _is_replica(sentinel_group.master))
        fleet.set_pool(pool_of(*members_of(7)))
        await until(lambda: fleet.healthy)
        async with Lookup.from_url(sentinel_group.replica.url, namespace="speech") as lookup:
            await until(lambda: returns_document(lookup, 7))


def _is_replica(server: RedisServer) -> bool:
    with suppress(ConnectionResetError):  # a new replica closes its connections
        return b"role:slave" in server.ask("INFO", "replication")
    return False


async def test_an_unknown_service_and_unreachable_sentinels_are_reported(sentinel_group: SentinelGroup) -> None:
    there, gone = f"127.0.0.1:{sentinel_group.sentinel.port}", "127.0.0.1:1"
    for service, sentinels in (("another", [there]), (SERVICE, [gone])):
        client = connect(f"redis://{service}/0", sentinels=sentinels, timeout=1)
        with pytest.raises(RetryableError, match=f"No master found for '{service}'"):
            await RedisWriter(client, FixedLeadership(), namespace="speech").claim(1)
        await client.aclose()
    client = connect(f"redis://{SERVICE}/0", sentinels=[gone, there], timeout=1)
    assert await RedisWriter(client, FixedLeadership(), namespace="speech").claim(1) == 1
    await client.aclose()
