"""ACL rules of docs/reference/redis.md for the operator: each is needed, other commands are refused (E4)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from redis.exceptions import NoPermissionError
from tests.support.leadership import FixedLeadership
from tests.support.redis_fixture_lookup import NO_DRIFT, TRANSITION
from tests.support.redis_page import OPERATOR, acl_rules

from hotpool.errors import RejectedError, WriteError
from hotpool.projection.connection.async_connection import Client, connect
from hotpool.projection.documents import NodeDocument, PoolDocument, PoolServices
from hotpool.projection.keys import FleetKeys
from hotpool.projection.redis_errors import TermNotClaimedError
from hotpool.projection.writer import RedisWriter

if TYPE_CHECKING:
    from localfleet.redis_server import RedisServer

KEYS = FleetKeys("hotpool", "speech")
NODES = [f"edge-{number:04}" for number in range(1200)]
RULES = acl_rules()[OPERATOR]
PERMISSIONS = [rule for rule in RULES if rule.startswith("+") and rule != "+xadd"]  # see test_waiting_rights.py


def pool(*ready: str, name: str = "zh-en", key: str = "zh-en") -> PoolDocument:
    services = PoolServices(("asr",), filtered=True, exceptions=dict.fromkeys(["edge-1", *ready[:300]], "fw"))
    return PoolDocument(name, "u1", "speech", key, frozenset(ready), frozenset(), frozenset(), services=services)


async def prepare(client: Client, *without: str) -> None:
    """Create the user, an expired load and a key of a wrong type, so that the writer needs every permission."""
    await client.execute_command("FLUSHALL")
    await client.execute_command("FUNCTION FLUSH")
    rules = [rule for rule in RULES if rule not in without]
    await client.execute_command("ACL", "SETUSER", OPERATOR, "reset", *rules)
    load, entries, expiries = KEYS.load
    await client.execute_command("ZADD", load, 2, "edge-1")
    await client.execute_command("HSET", entries, "expired", "edge-1 1")
    await client.execute_command("ZADD", expiries, 1, "expired")
    await client.execute_command("SET", KEYS.pools, "garbage")


async def use_all_methods(writer: RedisWriter) -> None:
    """Call every method of the writer."""
    assert await writer.claim(3, "cluster-1") == 3
    await writer.replace_pool(pool(*NODES[:100]))
    await writer.replace_pool(pool(*NODES[1:101]))
    await writer.replace_pool(pool(*NODES[1:101], key="zh-de"))
    await writer.replace_pool(pool(*NODES, name="large", key="large"))
    node = NodeDocument("edge-1", (("asr", True, None, ("fw",)),), "asr|fw|6007||10.0.3.7")
    await writer.replace_node(node, {"zh-en": "fw"})
    await writer.append_history("edge-1", [TRANSITION])
    await writer.stamp(complete=True)
    await writer.waiters()
    documents = {"zh-en": pool(*NODES[1:101], key="zh-de"), "large": pool(*NODES, name="large", key="large")}
    drift = await writer.check_drift(documents, {"edge-1": node})
    assert drift == NO_DRIFT
    assert await writer.ejections() == ()
    assert (await writer.read_ledger(0, ["edge-1"])).in_use == {"edge-1": 0}
    await writer.drop_index(["speech/none"])
    await writer.drop_pool("zh-en")
    await writer.drop_node("edge-1", delete_history=False)


@pytest.fixture
def operator_client(server: RedisServer) -> Client:
    return connect(f"redis://{OPERATOR}:CHANGE-ME@127.0.0.1:{server.port}/0")


async def test_the_documented_permissions_suffice(client: Client, operator_client: Client) -> None:
    await prepare(client)
    writer = RedisWriter(operator_client, FixedLeadership(), namespace="speech")
    await use_all_methods(writer)
    denied = (writer.endpoints_denied, writer.failures_denied, writer.slots_denied, writer.waiting_denied)
    assert denied == ((), (), (), ())
    await operator_client.aclose()


@pytest.mark.parametrize("permission", PERMISSIONS)
async def test_each_documented_permission_is_needed(client: Client, operator_client: Client, permission: str) -> None:
    await prepare(client, permission)
    with pytest.raises(WriteError) as caught:
        await use_all_methods(RedisWriter(operator_client, FixedLeadership(), namespace="speech"))
    assert isinstance(caught.value, RejectedError)
    assert not isinstance(caught.value, TermNotClaimedError)
    assert "denies its user a right" in str(caught.value)
    await operator_client.aclose()


@pytest.mark.parametrize(
    "words",
    [
        ("KEYS", "*"),
        ("SCAN", "0"),
        ("FLUSHALL",),
        ("FLUSHDB",),
        ("CONFIG", "GET", "*"),
        ("CONFIG SET", "maxmemory", "1"),
        ("ACL", "LIST"),
        ("FUNCTION", "FLUSH"),
        ("FUNCTION", "DUMP"),
        ("EVAL", "return 1", "0"),
        ("SHUTDOWN",),
        ("REPLICAOF", "NO", "ONE"),
        ("CLIENT", "KILL", "TYPE", "normal"),
        ("MONITOR",),
        ("SUBSCRIBE", "x"),
        ("PUBLISH", "x", "y"),
        ("GET", "{hotpool:speech}:meta"),
        ("HGET", "{hotpool:other}:meta", "term"),
        ("HSET", "others", "a", "b"),
        ("UNLINK", "hotpool:speech"),
    ],
)
async def test_other_commands_are_refused(client: Client, operator_client: Client, words: tuple[str, ...]) -> None:
    await prepare(client)
    with pytest.raises(NoPermissionError):
        await operator_client.execute_command(*words)
    await operator_client.aclose()


async def test_the_keys_of_another_fleet_are_refused(client: Client, operator_client: Client) -> None:
    await prepare(client)
    await RedisWriter(operator_client, FixedLeadership(), namespace="speech").claim(1)
    with pytest.raises(RejectedError, match="denies its user a right"):
        await RedisWriter(operator_client, FixedLeadership(), namespace="other").claim(1)
    await operator_client.aclose()
