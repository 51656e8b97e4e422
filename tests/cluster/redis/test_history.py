"""A node's last transitions on a real server: written with its image, fenced, capped, newest first (requirement F2).

Requirements E4.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from redis.crc import key_slot
from tests.support.redis_fixture_lookup import claimed

from hotpool.core.node_history import Transition
from hotpool.errors import FencedError
from hotpool.lookup import Lookup, LookupUnavailableError
from hotpool.projection.connection.async_connection import Client, connect
from hotpool.projection.documents import NodeDocument
from hotpool.projection.history import KEPT, encoded
from hotpool.projection.keys import FleetKeys

if TYPE_CHECKING:
    from localfleet.redis_server import RedisServer

KEYS = FleetKeys("hotpool", "speech")
NODE = NodeDocument("edge-1", (("asr", True, None, ("fw",)),))
STOPPED = Transition("2026-01-01T00:00:00Z", gained=("tts",), lost={"asr": "Stopped"})
SILENT = Transition("2026-01-01T00:01:00Z", "Live", "Suspect")


def at(number: int) -> Transition:
    return Transition(f"2026-01-01T00:00:{number:02}Z", "Live", "Suspect")


async def test_transitions_come_with_the_image_newest_first_and_whole(client: Client, lookup: Lookup) -> None:
    writer = await claimed(client)
    assert await lookup.transitions("edge-1") == ()
    await writer.replace_node(NODE, [encoded(STOPPED)])
    await writer.replace_node(NODE, [encoded(SILENT)])
    assert await lookup.transitions("edge-1") == (SILENT, STOPPED)
    found = await lookup.capability("edge-1")
    assert found
    assert set(found.types) == {"asr"}


async def test_ten_are_kept_also_of_many_that_come_at_once(client: Client, lookup: Lookup) -> None:
    writer = await claimed(client)
    await writer.replace_node(NODE, [encoded(at(number)) for number in range(8)])
    await writer.replace_node(NODE, [encoded(at(number)) for number in range(8, 15)])
    assert await lookup.transitions("edge-1") == tuple(at(number) for number in range(14, 14 - KEPT, -1))


async def test_one_that_is_sent_again_because_its_answer_was_lost_is_kept_once(client: Client, lookup: Lookup) -> None:
    writer = await claimed(client)
    await writer.replace_node(NODE, [encoded(STOPPED)])
    await writer.replace_node(NODE, [encoded(STOPPED), encoded(SILENT)])
    assert await lookup.transitions("edge-1") == (SILENT, STOPPED)


async def test_a_former_leader_adds_nothing(client: Client, lookup: Lookup) -> None:
    former = await claimed(client, 3)
    await former.replace_node(NODE, [encoded(STOPPED)])
    await claimed(client, 4)
    with pytest.raises(FencedError):
        await former.replace_node(NODE, [encoded(SILENT)])
    with pytest.raises(FencedError):
        await former.drop_node("edge-1", [encoded(SILENT)], forget=False)
    assert await lookup.transitions("edge-1") == (STOPPED,)


async def test_a_node_without_capability_keeps_its_history_for_a_week_and_for_good_when_it_is_back(
    client: Client, lookup: Lookup
) -> None:
    writer, key = await claimed(client), KEYS.history("edge-1")
    await writer.replace_node(NODE, [encoded(STOPPED)])
    await writer.drop_node("edge-1", [encoded(SILENT)], forget=False)
    assert await lookup.capability("edge-1") is None
    assert await lookup.transitions("edge-1") == (SILENT, STOPPED)
    assert 0 < await client.execute_command("PTTL", key) <= 7 * 24 * 3600 * 1000
    await writer.replace_node(NODE)
    assert await client.execute_command("PTTL", key) == -1
    assert await lookup.transitions("edge-1") == (SILENT, STOPPED)


async def test_a_node_that_is_gone_leaves_nothing(client: Client, lookup: Lookup) -> None:
    writer = await claimed(client)
    await writer.replace_node(NODE, [encoded(STOPPED)])
    await writer.drop_node("edge-1")
    assert await lookup.transitions("edge-1") == ()
    assert await client.execute_command("EXISTS", KEYS.history("edge-1")) == 0


async def test_garbage_in_its_place_is_overwritten_and_no_trouble_to_the_capability(
    client: Client, lookup: Lookup
) -> None:
    writer = await claimed(client)
    await client.execute_command("SET", KEYS.history("edge-1"), "garbage")
    with pytest.raises(LookupUnavailableError):
        await lookup.transitions("edge-1")
    await writer.replace_node(NODE, [encoded(STOPPED)])
    assert await lookup.transitions("edge-1") == (STOPPED,)
    await client.execute_command("LPUSH", KEYS.history("edge-1"), "[]")
    assert await lookup.transitions("edge-1") == (STOPPED,)
    assert await lookup.capability("edge-1") is not None


async def test_no_audit_finds_fault_with_a_history(client: Client) -> None:
    writer = await claimed(client)
    await writer.replace_node(NODE, [encoded(STOPPED)])
    await writer.drop_node("edge-2", [encoded(SILENT)], forget=False)
    assert (await writer.check_drift({}, {"edge-1": NODE})).clean


async def test_its_key_is_in_the_fleets_slot_and_readable_for_who_may_only_read(
    server: RedisServer, client: Client
) -> None:
    assert key_slot(KEYS.history("edge-1").encode()) == key_slot(KEYS.meta.encode())
    await (await claimed(client)).replace_node(NODE, [encoded(STOPPED)])
    await client.execute_command("ACL", "SETUSER", "reader", "reset", "on", ">pass", "%R~{hotpool:speech}:*", "+@read")
    reader = connect(server.url.replace("://", "://reader:pass@"))
    assert await Lookup(reader, namespace="speech").transitions("edge-1") == (STOPPED,)
    await reader.aclose()
