"""A node's last transitions on a real server: written after its document, fenced, limited, newest first (E4, F2)."""

from __future__ import annotations

from unittest.mock import Mock

import pytest
from redis.crc import key_slot
from tests.support.redis_fixture_lookup import NO_DRIFT, claimed_writer

from hotpool.core.node_history import Transition
from hotpool.errors import FencedError
from hotpool.lookup import Lookup, LookupUnavailableError, SyncLookup
from hotpool.projection.connection.async_connection import Client, connect
from hotpool.projection.documents import NodeDocument
from hotpool.projection.history import MAX_TRANSITIONS, encode
from hotpool.projection.keys import FleetKeys
from hotpool.projection.lookup import protocol
from localfleet.redis_server import RedisServer

KEYS = FleetKeys("hotpool", "speech")
NODE = NodeDocument("edge-1", (("asr", True, None, ("fw",)),))
STOPPED = Transition("2026-01-01T00:00:00Z", gained=("tts",), lost={"asr": "Stopped"})
SILENT = Transition("2026-01-01T00:01:00Z", "Live", "Suspect")


def at(number: int) -> Transition:
    return Transition(f"2026-01-01T00:00:{number:02}Z", "Live", "Suspect")


async def test_transitions_are_read_newest_first(client: Client, lookup: Lookup) -> None:
    writer = await claimed_writer(client)
    assert await lookup.transitions("edge-1") == ()
    await writer.replace_node(NODE)
    await writer.append_history("edge-1", [encode(STOPPED)])
    await writer.append_history("edge-1", [encode(SILENT)])
    assert await lookup.transitions("edge-1") == (SILENT, STOPPED)
    found = await lookup.capability("edge-1")
    assert found
    assert set(found.types) == {"asr"}


@pytest.mark.parametrize("cluster", [False, True])
async def test_histories_of_many_nodes_are_read_in_bounded_pipelines(
    cluster: bool,  # noqa: FBT001
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nodes = [f"edge-{number}" for number in range(5)]
    with RedisServer(cluster=cluster) as own:
        client = connect(own.url, cluster=cluster)
        writer, lookup = await claimed_writer(client), Lookup(client, namespace="speech")
        for number in (0, 3):
            await writer.append_history(nodes[number], [encode(at(number))])
        monkeypatch.setattr(protocol, "_PIPELINED", 2)
        pipeline = Mock(side_effect=client.pipeline)
        monkeypatch.setattr(client, "pipeline", pipeline)
        found = {node: (at(number),) if number in {0, 3} else () for number, node in enumerate(nodes)}
        assert await lookup.histories(nodes) == found
        assert pipeline.call_count == 3
        with SyncLookup.from_url(own.url, namespace="speech", cluster=cluster) as blocking:
            assert blocking.histories(nodes) == found
        await client.execute_command("SET", KEYS.history("edge-4"), "garbage")
        with pytest.raises(LookupUnavailableError, match="WRONGTYPE"):
            await lookup.histories(nodes)
        await client.aclose()


async def test_histories_without_any_fail_if_no_operator_writes_to_this_redis(lookup: Lookup) -> None:
    assert await lookup.histories([]) == {}
    with pytest.raises(LookupUnavailableError):
        await lookup.histories(["edge-1"])


async def test_only_the_last_ten_are_kept(client: Client, lookup: Lookup) -> None:
    writer = await claimed_writer(client)
    await writer.append_history("edge-1", [encode(at(number)) for number in range(8)])
    await writer.append_history("edge-1", [encode(at(number)) for number in range(8, 15)])
    assert await lookup.transitions("edge-1") == tuple(at(number) for number in range(14, 14 - MAX_TRANSITIONS, -1))


async def test_a_transition_resent_after_a_lost_reply_is_stored_once(client: Client, lookup: Lookup) -> None:
    writer = await claimed_writer(client)
    await writer.append_history("edge-1", [encode(STOPPED)])
    await writer.append_history("edge-1", [encode(STOPPED), encode(SILENT)])
    assert await lookup.transitions("edge-1") == (SILENT, STOPPED)


async def test_a_former_leader_adds_no_transition(client: Client, lookup: Lookup) -> None:
    former = await claimed_writer(client, 3)
    await former.append_history("edge-1", [encode(STOPPED)])
    await claimed_writer(client, 4)
    with pytest.raises(FencedError):
        await former.append_history("edge-1", [encode(SILENT)])
    assert await lookup.transitions("edge-1") == (STOPPED,)


async def test_a_history_expires_a_week_after_the_capability_is_deleted_unless_it_returns(
    client: Client, lookup: Lookup
) -> None:
    writer, key = await claimed_writer(client), KEYS.history("edge-1")
    await writer.replace_node(NODE)
    await writer.append_history("edge-1", [encode(STOPPED)])
    assert await client.execute_command("PTTL", key) == -1
    await writer.drop_node("edge-1", delete_history=False)
    assert 0 < await client.execute_command("PTTL", key) <= 7 * 24 * 3600 * 1000
    await writer.append_history("edge-1", [encode(SILENT)])
    assert await lookup.capability("edge-1") is None
    assert await lookup.transitions("edge-1") == (SILENT, STOPPED)
    assert 0 < await client.execute_command("PTTL", key) <= 7 * 24 * 3600 * 1000
    await writer.replace_node(NODE)
    assert await client.execute_command("PTTL", key) == -1
    assert await lookup.transitions("edge-1") == (SILENT, STOPPED)


async def test_a_deleted_node_leaves_no_key(client: Client, lookup: Lookup) -> None:
    writer = await claimed_writer(client)
    await writer.replace_node(NODE)
    await writer.append_history("edge-1", [encode(STOPPED)])
    await writer.drop_node("edge-1")
    assert await lookup.transitions("edge-1") == ()
    assert await client.execute_command("EXISTS", KEYS.history("edge-1")) == 0


async def test_garbage_in_the_history_is_overwritten_and_does_not_affect_the_capability(
    client: Client, lookup: Lookup
) -> None:
    writer = await claimed_writer(client)
    await client.execute_command("SET", KEYS.history("edge-1"), "garbage")
    with pytest.raises(LookupUnavailableError):
        await lookup.transitions("edge-1")
    await writer.replace_node(NODE)
    await writer.append_history("edge-1", [encode(STOPPED)])
    assert await lookup.transitions("edge-1") == (STOPPED,)
    await client.execute_command("LPUSH", KEYS.history("edge-1"), "[]")
    assert await lookup.transitions("edge-1") == (STOPPED,)
    assert await lookup.capability("edge-1") is not None


async def test_the_drift_check_ignores_histories(client: Client) -> None:
    writer = await claimed_writer(client)
    await writer.replace_node(NODE)
    await writer.append_history("edge-1", [encode(STOPPED)])
    await writer.append_history("edge-2", [encode(SILENT)])
    assert await writer.check_drift({}, {"edge-1": NODE}) == NO_DRIFT


async def test_the_key_is_in_the_fleets_slot_and_needs_only_read_permission(
    server: RedisServer, client: Client
) -> None:
    assert key_slot(KEYS.history("edge-1").encode()) == key_slot(KEYS.meta.encode())
    await (await claimed_writer(client)).append_history("edge-1", [encode(STOPPED)])
    await client.execute_command("ACL", "SETUSER", "reader", "reset", "on", ">pass", "%R~{hotpool:speech}:*", "+@read")
    reader = connect(server.url.replace("://", "://reader:pass@"))
    assert await Lookup(reader, namespace="speech").transitions("edge-1") == (STOPPED,)
    await reader.aclose()
