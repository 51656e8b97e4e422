"""Both look-up clients connect as the operator does: Sentinel, Cluster, TLS, rotated files (E4, E6)."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
from tests.support.certificates import Authority
from tests.support.redis_fixture_lookup import claimed_writer, names, node_of, pool
from tests.support.redis_fleet import until
from tests.support.tls import plain_or_tls, terminator

from hotpool.lookup import Credentials, Lookup, LookupUnavailableError, NoMember, Picked, SyncLookup
from hotpool.projection.connection.async_connection import connect
from hotpool.projection.lookup.base import MAX_CONNECTIONS
from localfleet.redis_groups import SERVICE, SentinelGroup, is_master
from localfleet.redis_server import RedisServer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from hotpool.projection.connection.async_connection import Client

    Pick: TypeAlias = Callable[[], Awaitable[Picked | NoMember]]
    Open: TypeAlias = Callable[..., Awaitable[Pick]]

NODES = names(5)


@pytest.fixture(params=[Lookup, SyncLookup])
async def opened(request: pytest.FixtureRequest) -> Any:
    """Yield a function that opens a look-up client for a URL and returns its pick."""
    async with AsyncExitStack() as stack:

        async def make(url: str, **options: Any) -> Pick:
            if request.param is Lookup:
                lookup = await stack.enter_async_context(Lookup.from_url(url, namespace="speech", **options))
                return lambda: lookup.pick("zh-en")
            sync_lookup = await asyncio.to_thread(lambda: SyncLookup.from_url(url, namespace="speech", **options))
            stack.callback(sync_lookup.close)
            return lambda: asyncio.to_thread(sync_lookup.pick, "zh-en")

        yield make


async def project(server: RedisServer, *, cluster: bool = False) -> None:
    client = connect(server.url, cluster=cluster)
    await (await claimed_writer(client)).replace_pool(pool(NODES))
    await client.aclose()


def fails(pick: Pick, text: str) -> Callable[[], Awaitable[bool]]:
    """Return a condition: the next pick fails, and its error contains `text`."""

    async def failed() -> bool:
        try:
            await pick()
        except LookupUnavailableError as failure:
            return text in str(failure)
        return False

    return failed


@pytest.mark.parametrize("cluster", [False, True], ids=["standalone", "cluster"])
async def test_a_rotated_password_file_is_read_at_the_next_connection(
    opened: Open, tmp_path: Path, *, cluster: bool
) -> None:
    file = tmp_path / "password"
    file.write_text("first\n")
    with RedisServer(cluster=cluster) as server:
        await project(server, cluster=cluster)
        server.ask("ACL", "SETUSER", "reader", "reset", "on", ">first", "~*", "+@all")
        url = server.url.replace("//", "//other:wr0ng@")
        pick = await opened(url, cluster=cluster, credentials=Credentials(user="reader", password=str(file)))
        assert node_of(await pick()) in NODES
        server.ask("ACL", "SETUSER", "reader", "resetpass", ">second")
        server.ask("CLIENT", "KILL", "USER", "reader")
        await until(fails(pick, "" if cluster else "Authentication"))
        file.write_text("second\n")
        assert node_of(await pick()) in NODES


@pytest.mark.parametrize("cluster", [False, True], ids=["standalone", "cluster"])
async def test_only_the_rotated_authority_is_trusted_at_the_next_connection(
    opened: Open, tmp_path: Path, *, cluster: bool
) -> None:
    first, second = Authority(tmp_path / "first"), Authority(tmp_path / "second")
    file = tmp_path / "ca.crt"
    file.write_bytes(first.path.read_bytes())
    with RedisServer(cluster=cluster) as server:
        await project(server, cluster=cluster)
        async with terminator(server.port, first.context(first.issue("redis"))) as front:
            if cluster:
                server.ask("CONFIG", "SET", "cluster-announce-port", str(front.port))
            url = f"rediss://127.0.0.1:{front.port}/0"
            pick = await opened(url, cluster=cluster, credentials=Credentials(ca=str(file)), timeout=1)
            assert node_of(await pick()) in NODES
            await front.rotate(second.context(second.issue("redis")))
            await until(fails(pick, "" if cluster else "CERTIFICATE_VERIFY_FAILED"))
            file.write_bytes(second.path.read_bytes())
            assert node_of(await pick()) in NODES


async def test_the_new_master_is_found_through_a_sentinel_with_tls_and_its_own_password(
    opened: Open, tmp_path: Path
) -> None:
    """All three servers use TLS with the client, and plain connections with each other."""
    authority = Authority(tmp_path / "authority")
    context = authority.context(authority.issue("redis"))
    secret = tmp_path / "password"
    secret.write_text("of the sentinel\n")
    async with AsyncExitStack() as stack:
        group = stack.enter_context(SentinelGroup())
        await project(group.master)
        ports = [
            (await stack.enter_async_context(plain_or_tls(server.port, context))).port
            for server in (group.master, group.replica, group.sentinel)
        ]
        await asyncio.to_thread(group.watch_through, *ports[:2])
        group.sentinel.ask("ACL", "SETUSER", "default", "resetpass", ">of the sentinel")
        credentials = Credentials(ca=str(authority.path), sentinel_password=str(secret))
        url, sentinels = f"rediss://{SERVICE}/0", [f"127.0.0.1:{ports[2]}"]
        pick = await opened(url, sentinels=sentinels, credentials=credentials, timeout=1)
        assert node_of(await pick()) in NODES
        await asyncio.to_thread(group.master.kill)
        await until(lambda: is_master(group.replica))

        async def picks_again() -> bool:
            try:
                return node_of(await pick()) in NODES
            except LookupUnavailableError:
                return False

        await until(picks_again)


def test_a_ca_file_without_tls_is_rejected_by_both_clients() -> None:
    for kind in (Lookup, SyncLookup):
        with pytest.raises(ValueError, match="rediss://"):
            kind.from_url("redis://127.0.0.1:1", namespace="speech", credentials=Credentials(ca="ca.crt"))


async def test_two_thousand_picks_at_a_time_share_a_few_connections(server: RedisServer, client: Client) -> None:
    await project(server)
    async with Lookup.from_url(server.url, namespace="speech", timeout=20) as lookup:
        before = int((await client.info("stats"))["total_connections_received"])
        picks = await asyncio.gather(*(lookup.pick("zh-en") for _ in range(2_000)))
        opened = int((await client.info("stats"))["total_connections_received"]) - before
    assert {node_of(answer) for answer in picks} == {*NODES}
    assert opened <= MAX_CONNECTIONS
    with (
        SyncLookup.from_url(server.url, namespace="speech", timeout=20) as sync_lookup,
        ThreadPoolExecutor(300) as threads,
    ):
        before = int((await client.info("stats"))["total_connections_received"])
        futures = [threads.submit(sync_lookup.pick, "zh-en") for _ in range(2_000)]
        answers = await asyncio.to_thread(lambda: [future.result() for future in futures])
        opened = int((await client.info("stats"))["total_connections_received"]) - before
    assert {node_of(answer) for answer in answers} == {*NODES}
    assert opened <= MAX_CONNECTIONS


def test_a_client_used_in_a_second_event_loop_says_what_to_do(server: RedisServer) -> None:
    asyncio.run(project(server))
    lookup = Lookup.from_url(server.url, namespace="speech")
    asyncio.run(lookup.pick("zh-en"))
    with pytest.raises(RuntimeError, match="create one for each loop"):
        asyncio.run(lookup.pick("zh-en"))
