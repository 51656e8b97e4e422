"""Rights on the keys of endpoints: without them the projection goes on, and picks return nodes alone (E4, E7)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.support.leadership import FixedLeadership
from tests.support.redis_fixture_lookup import KEYS, expect_picked, reason_of
from tests.support.redis_fleet import RedisFleet, leading, until
from tests.support.redis_page import OPERATOR, acl_rules

from hotpool.core.model import Endpoint
from hotpool.lookup import Lookup, Picked, Reason
from hotpool.observability.metrics import REGISTRY
from hotpool.projection.connection.async_connection import Client, connect
from hotpool.projection.documents import NodeDocument, PoolDocument
from hotpool.projection.writer import RedisWriter

if TYPE_CHECKING:
    from localfleet.redis_server import RedisServer

FORMER_KEYS = [
    f"~{{hotpool:speech}}:{name}"
    for name in ("meta", "pools", "nodes", "index", "node:*", "pool:*:ready", "pool:*:suspect", "pool:*:draining")
] + ["~{hotpool:speech}:pool:zh-en", "~{hotpool:speech}:stage:*", "~{hotpool:speech}:load*"]
RULES = acl_rules()[OPERATOR]
POOL = PoolDocument("zh-en", "u1", None, None, frozenset({"edge-1"}), frozenset(), frozenset())
NODE = NodeDocument("edge-1", (("asr", True, None, ("fw",)),))


def fleet_with_endpoint(client: Client) -> RedisFleet:
    leadership = FixedLeadership(3)
    fleet = RedisFleet(RedisWriter(client, leadership, namespace="speech"), leadership)
    fleet.set_pool(POOL)
    fleet.set_node(NODE)
    fleet.set_endpoints("edge-1", Endpoint("fw", "asr", 6007, ("10.0.3.7",)))
    return fleet


async def set_rules(client: Client, *keys: str) -> None:
    rules = [rule for rule in RULES if not rule.startswith("~")]
    await client.execute_command("ACL", "SETUSER", OPERATOR, "reset", *rules, *keys)


def enabled() -> float | None:
    return REGISTRY.get_sample_value("hotpool_redis_endpoints_enabled")


async def test_the_projection_goes_on_without_rights_on_endpoints_and_has_them_when_granted(
    server: RedisServer, client: Client, lookup: Lookup, capsys: pytest.CaptureFixture[str]
) -> None:
    await set_rules(client, *FORMER_KEYS)
    operator = connect(f"redis://{OPERATOR}:CHANGE-ME@127.0.0.1:{server.port}/0")
    fleet = fleet_with_endpoint(operator)
    async with leading(fleet):
        assert expect_picked(await lookup.pick("zh-en")).node == "edge-1"
        assert reason_of(await lookup.pick("zh-en", types=["asr"])) is Reason.NO_ENDPOINT
        assert await client.execute_command("EXISTS", KEYS.endpoints, KEYS.services("zh-en")) == 0
        assert enabled() == 0
        written = capsys.readouterr().out
        assert "no endpoints in Redis" in written
        assert "HSET {hotpool:speech}:endpoints" in written
        assert "HSET {hotpool:speech}:pool:any:services" in written
        await set_rules(client, "~{hotpool:speech}:*")  # noticed by the next drift check
        await until(lambda: enabled() == 1)

        async def has_endpoint() -> bool:
            return isinstance(await lookup.pick("zh-en", types=["asr"]), Picked)

        await until(has_endpoint)
        await set_rules(client, *FORMER_KEYS)
        fleet.set_endpoints("edge-1", Endpoint("fw", "asr", 6009, ("10.0.3.7",)))
        await until(lambda: enabled() == 0)
        await until(lambda: fleet.healthy)
        assert reason_of(await lookup.pick("zh-en", types=["asr"])) is Reason.NO_ENDPOINT
        assert expect_picked(await lookup.pick("zh-en")).node == "edge-1"
    await operator.aclose()


@pytest.mark.parametrize("command", ["hset", "hdel", "unlink", "hget"])
async def test_the_dry_call_names_each_command_that_is_missing(
    server: RedisServer, client: Client, command: str
) -> None:
    selector = f"({' '.join(rule for rule in RULES if rule.startswith('+') and rule != f'+{command}')} ~*)"
    others = f"(+{command} ~{{hotpool:speech}}:meta ~{{hotpool:speech}}:pool:any:services)"
    rules = [rule for rule in RULES if not rule.startswith(("~", "+"))]
    await client.execute_command("ACL", "SETUSER", OPERATOR, "reset", *rules, selector, others)
    operator = connect(f"redis://{OPERATOR}:CHANGE-ME@127.0.0.1:{server.port}/0")
    writer = RedisWriter(operator, FixedLeadership(), namespace="speech")
    assert await writer.claim(3) == 3
    assert writer.endpoints_denied == (f"{command.upper()} {KEYS.endpoints}",)
    await operator.aclose()
