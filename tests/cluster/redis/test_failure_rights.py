"""Rights on the keys of failures: without them failure reports are off and named, and everything else goes on (E8)."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from redis import Redis
from tests.support.failure_fleet import FAILURES, dispatcher, ejected, let_pass, pick_of, write_fleet
from tests.support.leadership import FixedLeadership
from tests.support.redis_fixture_lookup import KEYS, expect_picked, names
from tests.support.redis_fleet import RedisFleet, leading, until
from tests.support.redis_page import OPERATOR, acl_rules

from hotpool.lookup import Lookup, ReportEffect, SyncLookup
from hotpool.observability.metrics import REGISTRY
from hotpool.projection.connection.async_connection import Client, connect
from hotpool.projection.writer import RedisWriter

if TYPE_CHECKING:
    import pytest

    from localfleet.redis_server import RedisServer

TEN = sorted(names(10))
_READ = " ".join(f"%R~{{hotpool:speech}}:{name}" for name in ("meta", "index", "endpoints", "pool:*", "node:*"))
_LOAD = " ".join(f"~{key}" for key in KEYS.load)
_READS = "+time +hget +hmget +hgetall +hlen +zcard +zrank +zrange +zrangebyscore +zmscore +zscore +lrange"
FORMER_DISPATCHER = [
    *("on", ">CHANGE-ME", "resetkeys", "resetchannels", "-@all", "+fcall_ro", *_READS.split()),
    *f"{_READ} {_LOAD}".split(),
    f"(+fcall {_READ.replace('%R~', '%RW~')} {_LOAD})",
    f"(+zadd +zincrby +zrem +hset +hdel +unlink {_LOAD})",
]
"""A dispatcher whose rules name each key of the former version."""


def open_as(server: RedisServer, user: str, rules: list[str]) -> SyncLookup:
    with Redis.from_url(server.url) as admin:
        admin.execute_command("ACL", "SETUSER", user, "reset", *rules)
    url = f"redis://{user}:CHANGE-ME@127.0.0.1:{server.port}/0"
    return SyncLookup.from_url(url, namespace="speech", source=user)


async def test_a_dispatcher_without_the_new_keys_keeps_everything_it_had_and_reports_are_denied(
    server: RedisServer, client: Client, lookup: Lookup, caplog: pytest.LogCaptureFixture
) -> None:
    await write_fleet(client, TEN)
    await lookup.report_failure(await pick_of(lookup, "edge-1", TEN))
    with caplog.at_level(logging.WARNING, "hotpool.lookup"), open_as(server, "narrow", FORMER_DISPATCHER) as narrow:
        assert {expect_picked(narrow.pick("zh-en")).node for _ in range(200)} == set(TEN)
        picked = expect_picked(narrow.pick("zh-en", strategy="least-loaded", reserve=30, types=["asr"]))
        assert picked.reservation is not None
        assert narrow.renew(picked.reservation, 60)
        assert narrow.report_failure(picked) is ReportEffect.DENIED
        assert narrow.report_success(picked) is ReportEffect.DENIED
        assert narrow.release(picked.reservation, failed="unreachable")
        narrow.report_load({"edge-1": 1}, source="narrow", seconds=60)
    assert await ejected(client) == {"edge-1"}
    [record] = [entry for entry in caplog.records if entry.name == "hotpool.lookup"]
    assert f"HGET {FAILURES}" in str(record.args)


async def test_a_reader_picks_around_ejected_services_without_trials(
    server: RedisServer, client: Client, lookup: Lookup
) -> None:
    await write_fleet(client, TEN)
    await lookup.report_failure(await pick_of(lookup, "edge-1", TEN))
    await let_pass(client, 31)
    with open_as(server, "hotpool-reader", acl_rules()["hotpool-reader"]) as reader:
        assert {expect_picked(reader.pick("zh-en")).node for _ in range(200)} == set(TEN) - {"edge-1"}
        assert [item.node for item in reader.ejections()] == ["edge-1"]
        assert reader.report_failure(expect_picked(reader.pick("zh-en"))) is ReportEffect.DENIED
    assert expect_picked(await lookup.pick("zh-en")).state == "Trial"


async def test_a_server_that_refuses_writes_answers_without_a_trial(client: Client) -> None:
    await write_fleet(client, TEN)
    lookup = dispatcher(client, "one")
    await lookup.report_failure(await pick_of(lookup, "edge-1", TEN))
    await let_pass(client, 31)
    await client.execute_command("CONFIG SET", "min-replicas-to-write", "1")  # refuses functions that write
    try:
        assert expect_picked(await lookup.pick("zh-en")).node != "edge-1"
    finally:
        await client.execute_command("CONFIG SET", "min-replicas-to-write", "0")
    assert expect_picked(await lookup.pick("zh-en")).state == "Trial"


async def test_an_operator_without_the_new_keys_projects_and_reads_ejections_when_it_may(
    server: RedisServer, client: Client
) -> None:
    rules = acl_rules()[OPERATOR]
    narrow = [rule for rule in rules if not rule.startswith("~")]
    keys = ("meta", "pools", "nodes", "index", "endpoints", "node:*", "pool:*", "stage:*", "load")
    narrow += [*(f"~{{hotpool:speech}}:{name}" for name in keys), *(f"~{key}" for key in KEYS.load)]
    await client.execute_command("ACL", "SETUSER", OPERATOR, "reset", *narrow)
    operator = connect(f"redis://{OPERATOR}:CHANGE-ME@127.0.0.1:{server.port}/0")
    leadership = FixedLeadership(3)
    writer = RedisWriter(operator, leadership, namespace="speech")
    async with leading(RedisFleet(writer, leadership)) as _:
        assert f"HGET {FAILURES}" in writer.failures_denied
        assert writer.endpoints_denied == ()
        assert REGISTRY.get_sample_value("hotpool_redis_failures_enabled") == 0
        await client.execute_command("ACL", "SETUSER", OPERATOR, "reset", *rules)  # noticed by the next drift check
        await until(lambda: REGISTRY.get_sample_value("hotpool_redis_failures_enabled") == 1)
    await operator.aclose()
