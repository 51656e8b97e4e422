"""Rights on the keys of waiting picks: without them waiting alone is off and named (E10)."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
from redis import Redis
from tests.support.capacity_fleet import asr, slots_in_use, write_fleet
from tests.support.leadership import FixedLeadership
from tests.support.redis_fixture_lookup import KEYS, expect_picked, reason_of
from tests.support.redis_fleet import RedisFleet, leading, until
from tests.support.redis_page import OPERATOR, acl_rules

from hotpool.lookup import Lookup, NoMember, Reason, SyncLookup
from hotpool.observability.metrics import REGISTRY
from hotpool.projection.connection.async_connection import Client, connect
from hotpool.projection.writer import RedisWriter

if TYPE_CHECKING:
    from localfleet.redis_server import RedisServer

WAKEUPS, WAITERS = KEYS.waiting
_RULES = acl_rules()
DISPATCHER, READER = _RULES["hotpool-dispatcher"], _RULES["hotpool-reader"]
FORMER = [rule.replace(" +xadd +pexpire", "") for rule in DISPATCHER if rule != "+xread"]
"""A dispatcher of the former release."""
_OTHER_KEYS = ("meta", "index", "endpoints", "pool:*", "node:*", "load", "load:[^w]*")


def open_as(server: RedisServer, rules: list[str]) -> SyncLookup:
    with Redis.from_url(server.url) as admin:
        admin.execute_command("ACL", "SETUSER", "dispatcher", "reset", *rules)
    return SyncLookup.from_url(f"redis://dispatcher:CHANGE-ME@127.0.0.1:{server.port}/0", namespace="speech")


def narrow_rules() -> list[str]:
    """Return the former rules with patterns that lack the keys of waiting picks."""
    base = "{hotpool:speech}:"
    patterns = [f"{base}{name}" for name in _OTHER_KEYS]
    rules = []
    for rule in FORMER:
        if rule.startswith("%R~"):
            rules += [f"%R~{pattern}" for pattern in patterns]
        elif rule.startswith("(+fcall"):
            rules.append(f"(+fcall {' '.join(f'%RW~{pattern}' for pattern in patterns)})")
        elif rule.startswith("("):
            commands = rule[1:-1].split(" ")[:-1]
            rules.append(f"({' '.join(commands)} {' '.join(f'%RW~{pattern}' for pattern in patterns[-2:])})")
        else:
            rules.append(rule)
    return rules


@pytest.mark.parametrize("rules", [FORMER, narrow_rules()], ids=["commands", "keys"])
async def test_a_dispatcher_of_the_former_release_keeps_everything_and_does_not_wait(
    server: RedisServer, client: Client, lookup: Lookup, caplog: pytest.LogCaptureFixture, rules: list[str]
) -> None:
    await write_fleet(client, {"edge-1": asr(1)})
    with caplog.at_level(logging.WARNING, "hotpool.lookup"), open_as(server, rules) as narrow:
        picked = expect_picked(narrow.pick("zh-en", reserve=60))
        assert picked.reservation is not None
        assert picked.reservation.services == {"asr": "fw"}
        answer = narrow.pick("zh-en", reserve=60, wait=60)
        assert isinstance(answer, NoMember)
        assert (answer.reason, answer.wait_denied) == (Reason.FULL, True)
        assert reason_of(narrow.pick(["zh-en", "new"], reserve=60)) is Reason.FULL
        assert narrow.renew(picked.reservation, 60)
        assert narrow.release(picked.reservation, failed=False)
        assert expect_picked(narrow.pick("zh-en", reserve=60, wait=60)).node == "edge-1"
    assert await slots_in_use(client) == {"edge-1 fw": 1}
    records = [entry for entry in caplog.records if entry.name == "hotpool.lookup"]
    assert len(records) == 2  # for its waits, and for those whom it does not wake
    assert f"XREAD {WAKEUPS}" in str(records[0].args)
    assert str(records[1].args).count("XADD") == 1
    assert await client.execute_command("EXISTS", WAKEUPS, WAITERS) == 0
    assert expect_picked(await lookup.pick("zh-en"))


async def test_a_reader_does_not_wait(server: RedisServer, client: Client) -> None:
    await write_fleet(client, {"edge-1": asr(1)})
    with open_as(server, READER) as reader:
        answer = reader.pick(["new", "zh-en"], exclude=["edge-1"], wait=60)
        assert isinstance(answer, NoMember)
        assert answer.wait_denied
        assert expect_picked(reader.pick("zh-en", wait=60)).node == "edge-1"


async def test_rights_that_end_while_a_pick_waits_end_the_wait(server: RedisServer, client: Client) -> None:
    await write_fleet(client, {"edge-1": asr(1)})
    with open_as(server, DISPATCHER) as dispatcher:
        assert not _denied(dispatcher.pick("new", wait=0.01))
        open_as(server, FORMER).close()
        assert _denied(dispatcher.pick("new", wait=60))


def _denied(answer: object) -> bool:
    assert isinstance(answer, NoMember)
    return answer.wait_denied


async def test_an_operator_without_the_right_writes_everything_else_and_shows_it(
    server: RedisServer, client: Client, lookup: Lookup
) -> None:
    rules = [rule for rule in _RULES[OPERATOR] if rule != "+xadd"]
    await client.execute_command("ACL", "SETUSER", OPERATOR, "reset", *rules)
    narrow = connect(f"redis://{OPERATOR}:CHANGE-ME@127.0.0.1:{server.port}/0")
    leadership = FixedLeadership(3)
    fleet = RedisFleet(RedisWriter(narrow, leadership, namespace="speech"), leadership)
    fleet.set_node(asr(1).document("edge-1"))
    async with leading(fleet):
        assert REGISTRY.get_sample_value("hotpool_redis_waiting_enabled") == 0
        assert reason_of(await lookup.pick("zh-en", wait=0.05)) is Reason.POOL_UNKNOWN
        await client.execute_command("ACL", "SETUSER", OPERATOR, "+xadd")
        await until(lambda: REGISTRY.get_sample_value("hotpool_redis_waiting_enabled") == 1)
    await narrow.aclose()
