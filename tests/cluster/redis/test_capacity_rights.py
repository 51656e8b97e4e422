"""Rights on the keys of slots: without them limits are ignored and named, and everything else goes on (E9)."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from redis import Redis
from tests.support.capacity_fleet import SLOTS, asr, slots_in_use, write_fleet
from tests.support.redis_fixture_lookup import KEYS, expect_picked, names, node_loads, reason_of
from tests.support.redis_page import acl_rules

from hotpool.lookup import Lookup, Reason, SyncLookup

if TYPE_CHECKING:
    import pytest

    from hotpool.projection.connection.async_connection import Client
    from localfleet.redis_server import RedisServer

_KEYS = ("meta", "index", "endpoints", "pool:*", "node:*")
_OWN = " ".join(f"~{key}" for key in (*KEYS.load, *KEYS.failures))
_ALL = "+time +hget +hmget +hgetall +hlen +zcard +zrank +zrange +zrangebyscore +zmscore +zscore +lrange"
WITHOUT_SLOTS = [
    *("on", ">CHANGE-ME", "resetkeys", "resetchannels", "-@all", "+fcall_ro", *_ALL.split()),
    *(f"%R~{{hotpool:speech}}:{name}" for name in _KEYS),
    *_OWN.split(),
    f"(+fcall {' '.join(f'%RW~{{hotpool:speech}}:{name}' for name in _KEYS)} {_OWN})",
    f"(+zadd +zincrby +zrem +hset +hdel +unlink {_OWN})",
]
"""A dispatcher whose rules name each key but those of slots."""
READ_ONLY_SLOTS = [*WITHOUT_SLOTS[:-2], "%R~{hotpool:speech}:*", "(+fcall %RW~{hotpool:speech}:*)", WITHOUT_SLOTS[-1]]
"""One that may pass the keys of slots to a function, but not write them."""


def open_as(server: RedisServer, user: str, rules: list[str]) -> SyncLookup:
    with Redis.from_url(server.url) as admin:
        admin.execute_command("ACL", "SETUSER", user, "reset", *rules)
    return SyncLookup.from_url(f"redis://{user}:CHANGE-ME@127.0.0.1:{server.port}/0", namespace="speech")


async def test_a_dispatcher_without_the_keys_of_slots_reserves_without_limits_and_names_them(
    server: RedisServer, client: Client, lookup: Lookup, caplog: pytest.LogCaptureFixture
) -> None:
    await write_fleet(client, {"edge-0": asr(2)})
    held = expect_picked(await lookup.pick("zh-en", reserve=60))
    for user, rules in (("without", WITHOUT_SLOTS), ("read-only", READ_ONLY_SLOTS)):
        caplog.clear()
        with caplog.at_level(logging.WARNING, "hotpool.lookup"), open_as(server, user, rules) as narrow:
            picked = expect_picked(narrow.pick("zh-en", reserve=60))
            assert picked.reservation is not None
            assert picked.reservation.services == {}
            assert narrow.renew(picked.reservation, 60)
            assert await node_loads(client) == {"edge-0": 2}
            assert narrow.report_success(picked) == "Counted"
            assert expect_picked(narrow.pick("zh-en")).node == "edge-0"
            assert narrow.release(picked.reservation)
        [record] = [entry for entry in caplog.records if entry.name == "hotpool.lookup"]
        assert f"HSET {SLOTS}" in str(record.args)
    assert await slots_in_use(client) == {"edge-0 fw": 1}
    assert held.reservation is not None
    assert await lookup.release(held.reservation)


async def test_the_documented_dispatcher_and_reader_have_the_rights_on_slots(
    server: RedisServer, client: Client, lookup: Lookup, caplog: pytest.LogCaptureFixture
) -> None:
    await write_fleet(client, {name: asr(1) for name in names(2)})
    held = expect_picked(await lookup.pick("zh-en", reserve=60))
    rules = acl_rules()
    with caplog.at_level(logging.WARNING, "hotpool.lookup"):
        with open_as(server, "hotpool-reader", rules["hotpool-reader"]) as reader:
            reader.pick("zh-en")  # shows the client that there are limits
            assert {expect_picked(reader.pick("zh-en")).node for _ in range(30)} == names(2) - {held.node}
        with open_as(server, "hotpool-dispatcher", rules["hotpool-dispatcher"]) as dispatcher:
            other = expect_picked(dispatcher.pick("zh-en", reserve=60))
            assert reason_of(dispatcher.pick("zh-en", reserve=60)) is Reason.FULL
            assert other.reservation is not None
            assert dispatcher.renew(other.reservation, 60)
            assert dispatcher.release(other.reservation)
    assert not caplog.records
