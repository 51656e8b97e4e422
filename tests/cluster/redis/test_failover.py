"""Failovers of real groups of servers: the projection goes on at the new master, never a mix (E1, E2, E4).

Requirements E5.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import pytest
from tests.support.redis_fixture_publisher import Ours, pool, running, until

from hotpool.errors import RetryableError
from hotpool.lookup import Lookup, LookupUnavailableError
from hotpool.projection.connection.async_connection import connect
from hotpool.projection.keys import FleetKeys
from hotpool.projection.writer import RedisWriter
from localfleet.redis_groups import SERVICE, ClusterGroup, SentinelGroup

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from localfleet.redis_server import RedisServer

KEYS = FleetKeys("hotpool", "speech")
NODES = [f"edge-{number:03}" for number in range(1200)]
NUMBERS = range(100)


@pytest.fixture(scope="module")
def cluster() -> Iterator[ClusterGroup]:
    """Three masters and three replicas, of which only the third third has failed over when a test is over."""
    with ClusterGroup() as group:
        yield group


@pytest.fixture
def watched() -> Iterator[SentinelGroup]:
    with SentinelGroup() as group:
        yield group


def members_of(number: int) -> frozenset[str]:
    """Members of the image of a number: a window, so that any mix of two is none of them."""
    return frozenset(NODES[number : number + 600])


class Reader:
    """Reads until it is told to stop; what it saw."""

    def __init__(self, lookup: Lookup) -> None:
        self.lookup = lookup
        self.stopped = False
        self.seen: set[frozenset[str]] = set()

    async def run(self) -> None:
        while not self.stopped:
            try:
                found = await self.lookup.members("zh-en")
            except LookupUnavailableError:
                await asyncio.sleep(0.05)
                continue
            if found.version is not None:
                self.seen.add(frozenset(found.ready))
            await asyncio.sleep(0.001)


@asynccontextmanager
async def reading(*lookups: Lookup) -> AsyncIterator[list[Reader]]:
    """Readers beside what happens, each of which must see nothing but whole images."""
    readers = [Reader(lookup) for lookup in lookups]
    tasks = [asyncio.create_task(reader.run()) for reader in readers]
    try:
        yield readers
    finally:
        for reader in readers:
            reader.stopped = True
        await asyncio.gather(*tasks)
    whole = {members_of(number) for number in NUMBERS} | {frozenset({"edge-1", "edge-2"})}
    assert all(reader.seen <= whole for reader in readers)


async def change(ours: Ours, numbers: range) -> None:
    for number in numbers:
        await ours.mirror.publish_pool(pool(*members_of(number)))
        await asyncio.sleep(0.01)


async def says(lookup: Lookup, number: int) -> bool:
    try:
        return frozenset((await lookup.members("zh-en")).ready) == members_of(number)
    except LookupUnavailableError:
        return False


async def test_a_cluster_takes_the_projection_whole_and_in_changes(cluster: ClusterGroup) -> None:
    client = connect(cluster.url, cluster=True)
    lookup = Lookup.from_url(cluster.url, namespace="speech", cluster=True)
    async with lookup, reading(lookup) as readers, running(Ours(client)) as ours:
        await change(ours, range(30))
        assert ours.mirror.healthy
        await until(lambda: says(lookup, 29))
    assert len(readers[0].seen) > 3
    holder, _ = cluster.shard_of(KEYS.meta)
    for server in cluster.masters:
        found = server.ask("DBSIZE")
        assert found == b":0\r\n" if server is not holder else found != b":0\r\n"


async def test_a_shard_of_others_that_is_gone_stops_nothing_of_ours(cluster: ClusterGroup) -> None:
    holder, _ = cluster.shard_of(KEYS.meta)
    shards = zip(cluster.masters, cluster.replicas, strict=True)
    others = next(shard for shard in shards if shard[0] is not holder)
    client = connect(holder.url, cluster=True, timeout=1)
    try:
        for server in others:
            await asyncio.to_thread(server.kill)
        async with running(Ours(client)) as ours:
            holder.ask("FUNCTION", "FLUSH")
            await ours.mirror.publish_pool(pool(*members_of(1)))
            await until(lambda: ours.mirror.healthy)
    finally:
        for server in others:
            await asyncio.to_thread(server.start)
    await until(lambda: all(b"cluster_state:ok" in server.ask("CLUSTER", "INFO") for server in cluster.servers))


async def test_a_cluster_fails_over_to_a_replica_that_missed_writes_and_a_claim(cluster: ClusterGroup) -> None:
    master, replica = cluster.shard_of(KEYS.meta)
    seed = next(server for server in cluster.masters if server is not master)
    client = connect(seed.url, cluster=True, timeout=1)
    lookup = Lookup.from_url(seed.url, namespace="speech", cluster=True)
    async with lookup, reading(lookup), running(Ours(client)) as ours:
        await change(ours, range(5))
        await until(lambda: acknowledged(master))
        replica.pause()
        late = connect(seed.url, cluster=True, timeout=1)
        former = RedisWriter(late, namespace="speech", leader=lambda: True)
        assert await former.claim(3, "cluster-1") > 3
        ours.term = 9  # the next leader; the replica knows nothing of it
        await until(lambda: b"\r\n9\r\n" in master.ask("HGET", KEYS.meta, "term"))
        await change(ours, range(5, 20))
        await asyncio.to_thread(master.kill)
        replica.resume()
        writing = asyncio.create_task(change(ours, range(20, 40)))
        await until(lambda: b"role:master" in replica.ask("INFO", "replication"))
        await writing
        await until(lambda: ours.mirror.healthy)
        await until(lambda: says(lookup, 39))
        assert b"\r\n9\r\n" in replica.ask("HGET", KEYS.meta, "term")
        await late.aclose()
        await asyncio.to_thread(master.start)
        await until(lambda: b"role:slave" in master.ask("INFO", "replication"))
        await change(ours, range(40, 50))
        await until(lambda: ours.mirror.healthy)
        await until(lambda: says(lookup, 49))


def acknowledged(master: RedisServer) -> bool:
    """Whether the replica has all that the master wrote."""
    lines = dict(line.split(b":", 1) for line in master.ask("INFO", "replication").split(b"\r\n") if b":" in line)
    return b"slave0" in lines and lines[b"master_repl_offset"] in lines[b"slave0"]


async def test_under_a_sentinel_the_projection_goes_on_at_the_new_master(watched: SentinelGroup) -> None:
    url, sentinels = f"redis://{SERVICE}/0", [f"127.0.0.1:{watched.sentinel.port}"]
    client = connect(url, sentinels=sentinels, timeout=1)
    replica = Lookup.from_url(watched.replica.url, namespace="speech")
    reader = Lookup(connect(url, sentinels=sentinels, timeout=1, read_retries=1), namespace="speech")
    async with replica, reader, reading(reader, replica) as readers, running(Ours(client)) as ours:
        await change(ours, range(20))
        assert ours.mirror.healthy
        await asyncio.to_thread(watched.master.kill)
        writing = asyncio.create_task(change(ours, range(20, 40)))
        await until(lambda: b"role:master" in watched.replica.ask("INFO", "replication"))
        await writing
        await until(lambda: ours.mirror.healthy)
        await until(lambda: says(reader, 39))
        await until(lambda: says(replica, 39))
        assert all(len(one.seen) > 1 for one in readers)


async def test_a_master_that_became_a_replica_is_left_for_the_new_one(watched: SentinelGroup) -> None:
    client = connect(f"redis://{SERVICE}/0", sentinels=[f"127.0.0.1:{watched.sentinel.port}"], timeout=1)
    async with running(Ours(client)) as ours:
        await until(lambda: watched.sentinel.ask("SENTINEL", "FAILOVER", SERVICE)[:1] == b"+")
        await until(lambda: _is_replica(watched.master))
        await ours.mirror.publish_pool(pool(*members_of(7)))
        await until(lambda: ours.mirror.healthy)
        async with Lookup.from_url(watched.replica.url, namespace="speech") as lookup:
            await until(lambda: says(lookup, 7))


def _is_replica(server: RedisServer) -> bool:
    with suppress(ConnectionResetError):  # it ends its clients when it is told that it is one
        return b"role:slave" in server.ask("INFO", "replication")
    return False


async def test_an_unknown_service_and_sentinels_that_are_away_are_said(watched: SentinelGroup) -> None:
    there, gone = f"127.0.0.1:{watched.sentinel.port}", "127.0.0.1:1"
    for service, sentinels in (("another", [there]), (SERVICE, [gone])):
        client = connect(f"redis://{service}/0", sentinels=sentinels, timeout=1)
        with pytest.raises(RetryableError, match=f"No master found for '{service}'"):
            await RedisWriter(client, namespace="speech", leader=lambda: True).claim(1)
        await client.aclose()
    client = connect(f"redis://{SERVICE}/0", sentinels=[gone, there], timeout=1)
    assert await RedisWriter(client, namespace="speech", leader=lambda: True).claim(1) == 1
    await client.aclose()
