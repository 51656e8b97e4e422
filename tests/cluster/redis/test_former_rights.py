"""A fleet with ACL users that were made for the former version: it keeps everything it had (E8, E9, E10, C5).

The former version knew no reports, limits, drains and waiting picks. What its users may not do is off, and named.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from redis import Redis
from tests.support.capacity_fleet import asr, slots_in_use
from tests.support.dispatch_life import expect_life
from tests.support.leadership import FixedLeadership
from tests.support.redis_fixture_lookup import KEYS, expect_picked, node_loads
from tests.support.redis_fleet import RedisFleet, leading

from hotpool.core.model import Endpoint
from hotpool.lookup import ReportEffect, SyncLookup
from hotpool.observability.metrics import REGISTRY
from hotpool.projection.connection.async_connection import Client, connect
from hotpool.projection.documents import PoolDocument, PoolServices
from hotpool.projection.writer import RedisWriter

if TYPE_CHECKING:
    import pytest

    from localfleet.redis_server import RedisServer

_BEGIN = ("on", ">CHANGE-ME", "resetkeys", "resetchannels", "-@all")
_READER = tuple(f"+{word}" for word in ["fcall_ro", "time", "hget", "hmget", "hgetall", "zcard", "zrank", "zrange"])
_READER += ("+zrangebyscore", "+zmscore", "+lrange")
_DISPATCHER = (*_READER, "+hlen", "+zscore")
_CONTROL = "fcall fcall_ro function|load time type exists unlink persist pexpire rename"
_COMMANDS = "hset hdel hget hmget hgetall hlen hscan sadd srem sscan lpos lpush ltrim"
_SORTED_SETS = "zadd zincrby zrem zcard zmscore zrange zrangebyscore"
_OPERATOR = tuple(f"+{word}" for word in f"{_CONTROL} {_COMMANDS} {_SORTED_SETS}".split(" "))
_WRITES = "+zadd +zincrby +zrem +hset +hdel +unlink"
DOCUMENTED = {
    "reader": [*_BEGIN, *_READER, "%R~{hotpool:speech}:*"],
    "dispatcher": [
        *(*_BEGIN, *_DISPATCHER, "%R~{hotpool:speech}:*"),
        *("(+fcall %RW~{hotpool:speech}:*)", f"({_WRITES} %RW~{{hotpool:speech}}:load*)"),
    ],
    "operator": [*_BEGIN, *_OPERATOR, "~{hotpool:speech}:*"],
}
"""Rules of docs/reference/redis.md of the former version."""
_READ = [f"%R~{{hotpool:speech}}:{name}" for name in ("meta", "index", "endpoints", "pool:*", "node:*")]
_LOAD = [f"~{key}" for key in KEYS.load]
_OWN = ("meta", "pools", "nodes", "index", "endpoints", "node:*", "pool:*", "stage:*")
BY_KEY = {
    "reader": [*_BEGIN, *_READER, *_READ, f"%R{_LOAD[0]}"],
    "dispatcher": [
        *(*_BEGIN, *_DISPATCHER, *_READ, *_LOAD),
        f"(+fcall {' '.join(_READ).replace('%R~', '%RW~')} {' '.join(_LOAD)})",
        f"({_WRITES} {' '.join(_LOAD)})",
    ],
    "operator": [*_BEGIN, *_OPERATOR, *(f"~{{hotpool:speech}}:{name}" for name in _OWN), *_LOAD],
}
"""The same rights, for the keys of the former version alone."""
FEATURES = ("endpoints", "failures", "slots", "waiting")


def set_users(server: RedisServer, rules: dict[str, list[str]]) -> None:
    with Redis.from_url(server.url) as admin:
        for user, words in rules.items():
            admin.execute_command("ACL", "SETUSER", user, "reset", *words)


def url_of(server: RedisServer, user: str) -> str:
    return f"redis://{user}:CHANGE-ME@127.0.0.1:{server.port}/0"


def enabled() -> dict[str, float | None]:
    return {name: REGISTRY.get_sample_value(f"hotpool_redis_{name}_enabled") for name in FEATURES}


def new_fleet(client: Client) -> RedisFleet:
    leadership = FixedLeadership(3)
    fleet = RedisFleet(RedisWriter(client, leadership, namespace="speech"), leadership)
    members = frozenset({"edge-1"}), frozenset[str](), frozenset[str]()
    fleet.set_pool(PoolDocument("zh-en", "u1", None, None, *members, services=PoolServices(("asr",))))
    fleet.set_node(asr(None).document("edge-1"))
    fleet.set_endpoints("edge-1", Endpoint("fw", "asr", 6007, ("10.0.3.7",)))
    return fleet


async def test_users_with_the_documented_rules_have_every_new_feature_but_waking_and_that_is_named(
    server: RedisServer, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    set_users(server, DOCUMENTED)
    operator = connect(url_of(server, "operator"))
    with caplog.at_level(logging.WARNING, "hotpool.lookup"):
        with SyncLookup.from_url(url_of(server, "dispatcher"), namespace="speech") as dispatcher:
            await expect_life(operator, dispatcher)
        with SyncLookup.from_url(url_of(server, "reader"), namespace="speech") as reader:
            assert expect_picked(reader.pick("zh-en")).endpoints
            assert reader.ejections() == ()
    [record] = caplog.records
    assert f"XADD {KEYS.waiting[0]}" in str(record.args)
    await client.execute_command("FLUSHALL")
    async with leading(new_fleet(operator)):
        assert enabled() == dict.fromkeys(FEATURES, 1) | {"waiting": 0}
    await operator.aclose()


async def test_users_whose_rules_name_each_key_keep_everything_else_and_what_is_off_is_named(
    server: RedisServer, client: Client, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    set_users(server, BY_KEY)
    operator = connect(url_of(server, "operator"))
    fleet = new_fleet(operator)
    async with leading(fleet):
        assert enabled() == {"endpoints": 1, "failures": 0, "slots": 0, "waiting": 0}
        with caplog.at_level(logging.WARNING, "hotpool.lookup"):
            await expect_former_features(server, client)
    written = capsys.readouterr().out
    for key in (*KEYS.failures, *KEYS.slots):
        assert written.count(f"UNLINK {key},") == 1
    named = [str(record.args) for record in caplog.records if record.name == "hotpool.lookup"]
    assert len(named) == 2, "once for each client"
    assert all(f"MGET {KEYS.slots[0]}" in text and f"HGET {KEYS.failures[0]}" in text for text in named)
    await operator.aclose()


async def expect_former_features(server: RedisServer, client: Client) -> None:
    """Pick, reserve, renew, report load, release and read; reports are denied."""
    with SyncLookup.from_url(url_of(server, "dispatcher"), namespace="speech") as dispatcher:
        for strategy in ("uniform", "least-loaded"):
            assert expect_picked(dispatcher.pick("zh-en", strategy=strategy, types=["asr"])).node == "edge-1"
        assert expect_picked(dispatcher.pick("zh-en", key="user-1")).node == "edge-1"
        held = [expect_picked(dispatcher.pick("zh-en", reserve=60)).reservation for _ in range(3)]
        dispatcher.report_load({"edge-1": 0.5}, source="one", seconds=60)
        assert await node_loads(client) == {"edge-1": 3.5}
        assert await slots_in_use(client) == {}
        for one in held:
            assert one is not None
            assert dispatcher.renew(one, 60)
            assert dispatcher.report_failure(one) is ReportEffect.DENIED
            assert dispatcher.release(one, failed="unreachable")
        assert dispatcher.renew(held[0], 60) is None  # type: ignore[arg-type]
        assert await node_loads(client) == {"edge-1": 0.5}
    with SyncLookup.from_url(url_of(server, "reader"), namespace="speech") as reader:
        for strategy in ("uniform", "least-loaded"):
            assert expect_picked(reader.pick("zh-en", strategy=strategy)).node == "edge-1"
        assert reader.members("zh-en").ready == ("edge-1",)
        capability = reader.capability("edge-1")
        assert capability is not None
        assert capability.types["asr"].ready
        assert reader.transitions("edge-1") == ()
