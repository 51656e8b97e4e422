"""The synchronous client returns the results of the asynchronous one, on one server and on a cluster (E4, E6)."""

from __future__ import annotations

import inspect
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from redis import Redis
from redis.cluster import RedisCluster
from tests.support.redis_fixture_lookup import claimed_writer, expect_picked, names, node_of, pool, reason_of

from hotpool.lookup import Lookup, LookupUnavailableError, Reason, SyncLookup
from hotpool.projection.connection.async_connection import connect
from hotpool.projection.documents import NodeDocument
from localfleet.ports import free_port
from localfleet.redis_server import RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hotpool.projection.connection.async_connection import Client
    from hotpool.projection.writer import RedisWriter

NODE = NodeDocument("edge-1", (("asr", True, None, ("fw",)), ("tts", False, "Stopped", ())))
TRANSITION = '{"at":"2026-11-27T00:00:00Z","from":null,"to":"Live","gained":["asr"],"lost":{}}'


@pytest.fixture
async def writer(client: Client) -> RedisWriter:
    writer = await claimed_writer(client)
    await writer.replace_pool(pool(names(9), ["s"], ["d"]))
    await writer.replace_node(NODE)
    await writer.append_history("edge-1", [TRANSITION])
    return writer


@pytest.fixture
def sync_lookup(server: RedisServer) -> Iterator[SyncLookup]:
    with Redis.from_url(server.url) as client, SyncLookup(client, namespace="speech", chance=lambda: 0.4) as lookup:
        yield lookup


@pytest.fixture
def async_lookup(client: Client) -> Lookup:
    return Lookup(client, namespace="speech", chance=lambda: 0.4)


def test_both_clients_have_the_same_methods() -> None:
    surfaces = []
    for kind in (Lookup, SyncLookup):
        methods = {name: found for name, found in vars(kind).items() if not name.startswith("_")}
        surfaces.append({name: str(inspect.signature(getattr(kind, name))) for name in methods})
    assert surfaces[0] == surfaces[1]
    assert len(surfaces[0]) == 13
    assert "from_url" not in surfaces[0]  # inherited


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"strategy": "least-loaded"},
        {"key": "user-1"},
        {"exclude": names(9)},
        {"exclude": {"s", *names(9)}},
        {"max_age": 60},
    ],
)
async def test_both_clients_return_the_same_picks(
    writer: RedisWriter, async_lookup: Lookup, sync_lookup: SyncLookup, options: dict[str, Any]
) -> None:
    assert sync_lookup.pick("zh-en", **options) == await async_lookup.pick("zh-en", **options)
    expected = await async_lookup.pick_key("speech", "zh-en", **options)
    assert sync_lookup.pick_key("speech", "zh-en", **options) == expected
    assert writer


async def test_both_clients_return_the_same_members_and_capabilities(
    writer: RedisWriter, async_lookup: Lookup, sync_lookup: SyncLookup
) -> None:
    assert sync_lookup.members("zh-en") == await async_lookup.members("zh-en")
    assert sync_lookup.members("zh-en").ready == tuple(sorted(names(9)))
    assert sync_lookup.capability("edge-1") == await async_lookup.capability("edge-1")
    assert sync_lookup.capability("none") is None
    assert sync_lookup.transitions("edge-1") == await async_lookup.transitions("edge-1")
    assert len(sync_lookup.transitions("edge-1")) == 1
    assert reason_of(sync_lookup.pick("none")) is Reason.POOL_UNKNOWN
    assert writer


async def test_a_reservation_of_one_client_is_renewed_and_released_by_the_other(
    writer: RedisWriter, async_lookup: Lookup, sync_lookup: SyncLookup
) -> None:
    made = expect_picked(sync_lookup.pick("zh-en", strategy="least-loaded", reserve=60)).reservation
    assert made is not None
    renewed = await async_lookup.renew(made, 120)
    assert renewed is not None
    assert renewed.node == made.node
    assert await async_lookup.release(renewed)
    assert not sync_lookup.release(made)
    assert sync_lookup.renew(made.id, 60) is None
    sync_lookup.report_load(dict.fromkeys(names(9) - {"edge-4"}, 2), source="a", seconds=60)
    assert node_of(await async_lookup.pick("zh-en", strategy="least-loaded")) == "edge-4"
    assert writer


async def test_threads_share_one_synchronous_client(writer: RedisWriter, sync_lookup: SyncLookup) -> None:
    with ThreadPoolExecutor(8) as threads:
        answers = list(
            threads.map(lambda _: sync_lookup.pick_key("speech", "zh-en", key="user-1", reserve=60), range(90))
        )
    assert len({node_of(answer) for answer in answers}) == 1
    assert len({expect_picked(answer).reservation for answer in answers}) == 90
    assert writer


async def test_a_synchronous_look_up_without_a_valid_reply_fails(server: RedisServer, client: Client) -> None:
    with SyncLookup.from_url(server.url, namespace="speech") as lookup:
        with pytest.raises(LookupUnavailableError, match="has an operator reached"):
            lookup.pick("zh-en")
        await claimed_writer(client)
        assert reason_of(lookup.pick("zh-en")) is Reason.POOL_UNKNOWN
    with (
        SyncLookup.from_url(f"redis://unknown:s3cret@127.0.0.1:{server.port}/0", namespace="speech") as refused,
        pytest.raises(LookupUnavailableError) as caught,
    ):
        refused.pick("zh-en")
    assert "s3cret" not in str(caught.value)
    for cluster in (False, True):
        with pytest.raises(LookupUnavailableError):
            SyncLookup.from_url(f"redis://127.0.0.1:{free_port()}", namespace="x", cluster=cluster).pick("zh-en")
        async with Lookup.from_url(f"redis://127.0.0.1:{free_port()}", namespace="x", cluster=cluster) as away:
            with pytest.raises(LookupUnavailableError):
                await away.pick("zh-en")
    with pytest.raises(ValueError, match="URL of Redis") as unreadable:
        SyncLookup.from_url("http://op:s3cret@host", namespace="speech")
    assert "s3cret" not in str(unreadable.value)


async def test_the_synchronous_client_runs_in_cluster_mode() -> None:
    with RedisServer(cluster=True) as server:
        client = connect(server.url, cluster=True)
        writer = await claimed_writer(client)
        await writer.replace_pool(pool(names(20)))
        with SyncLookup.from_url(server.url, namespace="speech", cluster=True) as lookup:
            made = expect_picked(lookup.pick_key("speech", "zh-en", strategy="least-loaded", reserve=60))
            assert made.reservation is not None
            assert lookup.release(made.reservation)
        with SyncLookup(RedisCluster.from_url(server.url), namespace="speech") as lookup:
            assert node_of(lookup.pick("zh-en", key="user-1")) in names(20)
        await client.aclose()


async def test_a_pick_is_one_round_trip_in_cluster_mode() -> None:
    with RedisServer(cluster=True) as server, Redis.from_url(server.url) as plain:
        client = connect(server.url, cluster=True)
        writer = await claimed_writer(client)
        await writer.replace_pool(pool(names(20)))
        async with Lookup.from_url(server.url, namespace="speech", cluster=True) as lookup:
            with SyncLookup.from_url(server.url, namespace="speech", cluster=True) as sync_lookup:
                for warm in (await lookup.pick("zh-en"), sync_lookup.pick("zh-en")):
                    assert node_of(warm)
                plain.config_resetstat()
                await lookup.pick("zh-en", key="user-1")
                sync_lookup.pick("zh-en", key="user-1")
                stats = plain.info("commandstats")
        assert stats["cmdstat_fcall_ro"]["calls"] == 2
        assert [name for name in stats if name.startswith(("cmdstat_command", "cmdstat_cluster"))] == []
        await client.aclose()
