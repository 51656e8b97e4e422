"""The former library beside ours: its clients work on what our operator writes, in an upgrade and a rollback (E6)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from redis.exceptions import ResponseError
from tests.support import former_lookup as former
from tests.support.redis_fixture_lookup import (
    KEYS,
    claimed_writer,
    expect_picked,
    names,
    node_loads,
    node_of,
    reason_of,
)

from hotpool.lookup import Lookup, Reason
from hotpool.projection.documents import NodeDocument, PoolDocument, PoolServices
from hotpool.projection.functions import FORMER_LIBRARY, former_library_source, library_source

if TYPE_CHECKING:
    from hotpool.projection.connection.async_connection import Client
    from hotpool.projection.writer import RedisWriter

READY, SUSPECT, DRAINING = sorted(names(5)), ["s"], ["d"]
POOL = PoolDocument(
    "zh-en",
    "u1",
    "speech",
    "zh-en",
    frozenset(READY),
    frozenset(SUSPECT),
    frozenset(DRAINING),
    services=PoolServices(("asr",), filtered=True, endpoint_required=True, exceptions={"edge-1": "fw"}),
)
NODE = NodeDocument("edge-1", (("asr", True, None, ("fw",)),), "asr|fw|6007|http|10.0.3.7")


@pytest.fixture
async def writer(client: Client) -> RedisWriter:
    await client.execute_command("FUNCTION FLUSH")
    writer = await claimed_writer(client)
    await writer.replace_pool(POOL)
    await writer.replace_node(NODE)
    await writer.stamp(complete=True)
    return writer


def test_the_former_library_is_the_one_of_its_release() -> None:
    """Its digest never changes: a former operator would load its own library again, and ours again in turn."""
    assert former_library_source()[1] == "c6d918f030c6a78267ababc9"
    assert f"#!lua name={FORMER_LIBRARY}\n" in former_library_source()[0]
    assert former_library_source()[1] in former_library_source()[0]


@pytest.mark.usefixtures("writer")
async def test_every_call_of_a_former_client_works(client: Client) -> None:
    for how in (("uniform", "0.3"), ("least-loaded", "0.3"), ("affinity", "user-1"), ("uniform", "0", "speech/zh-en")):
        node, state, version, age, complete = await former.pick(client, "zh-en", *how)
        assert (node in READY, state, version, int(age) >= 0, complete) == (True, "Ready", "1", True, "1")
    assert (await former.pick(client, "zh-en", "uniform", "0.3", "", 60_000, *READY))[:2] == ["s", "Suspect"]
    reply = await former.pick(client, "zh-en", "uniform", "0.3", "", "", *READY, *SUSPECT)
    assert (reply[:3], reply[5:]) == (["-", "AllExcluded", "1"], ["5", "1", "1", "6"])
    assert (await former.pick(client, "none", "uniform", "0.3"))[1] == "PoolUnknown"
    node, *_, expiry = await former.reserve(client, "zh-en", "id", "least-loaded", "0.3")
    assert await node_loads(client) == {node: 1}
    assert int(expiry) > 0
    assert await former.release(client, "id") == 1
    assert await former.report(client, "d", "edge-1", 3) == 1
    assert await node_loads(client) == {"edge-1": 3}
    assert await former.find(client, "speech/zh-en") == "zh-en"
    stored = [sorted(name.decode() for name in group) for group in await former.members(client, "zh-en")]
    assert stored == [READY, SUSPECT, DRAINING]
    assert await former.capability(client, "edge-1") == {"asr": '{"ready":true,"reason":null,"services":["fw"]}'}


@pytest.mark.usefixtures("writer")
async def test_both_libraries_count_the_same_loads(client: Client, lookup: Lookup) -> None:
    await former.reserve(client, "zh-en", "id", "affinity", "user-1")
    reserved = node_of(await lookup.pick("zh-en", types=["asr"], reserve=60, strategy="least-loaded"))
    loads = await node_loads(client)
    assert (reserved, sum(loads.values())) == ("edge-1", 2)
    assert await lookup.release("id")


async def test_a_former_library_that_is_loaded_is_not_replaced(client: Client) -> None:
    source, digest = former_library_source()
    await client.execute_command("FUNCTION FLUSH")
    await client.execute_command("FUNCTION LOAD", source.replace(digest, "as loaded before"))
    writer = await claimed_writer(client)
    keys = (KEYS.meta,)
    reply = await client.execute_command("FCALL_RO", f"{FORMER_LIBRARY}_overview", 1, *keys)
    assert reply[0] == b"as loaded before"
    await writer.stamp(complete=True)


@pytest.mark.usefixtures("writer")
async def test_after_a_rollback_no_pick_returns_the_endpoints_that_nobody_maintains(
    client: Client, lookup: Lookup
) -> None:
    await client.execute_command("FUNCTION LOAD", "REPLACE", former_library_source()[0])
    assert expect_picked(await lookup.pick("zh-en")).url("asr") == "http://10.0.3.7:6007"
    await former.claim(client, 4)
    assert expect_picked(await lookup.pick("zh-en")).endpoints == {}
    assert reason_of(await lookup.pick("zh-en", endpoint=True)) is Reason.NO_ENDPOINT
    ours = await claimed_writer(client, 5)
    assert await client.execute_command("EXISTS", KEYS.endpoints) == 0
    await ours.replace_pool(POOL)
    await ours.replace_node(NODE)
    assert expect_picked(await lookup.pick("zh-en")).url("asr") == "http://10.0.3.7:6007"


async def test_the_pick_of_a_client_newer_than_the_operator_names_the_library(client: Client) -> None:
    await client.execute_command("FUNCTION FLUSH")
    await client.execute_command("FUNCTION LOAD", former_library_source()[0])
    lookup = Lookup(client, namespace="speech")
    with pytest.raises(Exception, match=r"no library hotpool_4: .* as new as this client"):
        await lookup.pick("zh-en")
    assert library_source()[0] != former_library_source()[0]
    with pytest.raises(ResponseError, match="not found"):
        await client.execute_command("FCALL_RO", "hotpool_4_pick", 1, KEYS.meta)
