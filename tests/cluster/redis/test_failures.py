"""Failure reports on a real server: ejection, trial, end, and what each kind of bad dispatcher does to others (E8)."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from tests.support.failure_fleet import (
    FAILURES,
    SOURCES,
    dispatcher,
    ejected,
    let_pass,
    node,
    pick_of,
    picks,
    write_fleet,
)
from tests.support.redis_fixture_lookup import KEYS, expect_picked, names

from hotpool.lookup import Lookup, ReportEffect, SyncLookup
from hotpool.projection.documents import PoolDocument, PoolServices

if TYPE_CHECKING:
    from hotpool.projection.connection.async_connection import Client
    from localfleet.redis_server import RedisServer

TEN = sorted(names(10))
STRATEGIES: list[dict[str, Any]] = [{}, {"strategy": "least-loaded"}, {"strategy": "least-loaded", "reserve": 5}]
OPTIONS: list[dict[str, Any]] = [*STRATEGIES, {"key": "user-1"}]


@pytest.fixture
def other(client: Client) -> Lookup:
    return dispatcher(client, "other")


async def fail(
    lookup: Lookup, name: str, among: Any = TEN, kind: Any = "unreachable", *, expected: str = "Ejected"
) -> None:
    assert await lookup.report_failure(await pick_of(lookup, name, among), kind) == expected


async def succeed(lookup: Lookup, name: str, among: Any = TEN) -> None:
    assert await lookup.report_success(await pick_of(lookup, name, among)) == "Counted"


@pytest.mark.parametrize("options", OPTIONS)
async def test_an_unreachable_node_is_picked_by_no_dispatcher_while_others_are_ready(
    client: Client, lookup: Lookup, other: Lookup, options: dict[str, Any]
) -> None:
    await write_fleet(client, TEN, ["edge-99"])
    failed = expect_picked(await lookup.pick("zh-en", **options))
    assert await lookup.report_failure(failed) is ReportEffect.EJECTED
    found = await picks(other, 200, **options)
    assert found.keys() <= set(TEN) - {failed.node}
    if "key" not in options:
        assert found.keys() == set(TEN) - {failed.node}


@pytest.mark.parametrize("options", OPTIONS)
async def test_ejected_nodes_are_picked_after_other_ready_ones_and_before_suspect_ones(
    client: Client, lookup: Lookup, options: dict[str, Any]
) -> None:
    await write_fleet(client, ["edge-1", "edge-2"], ["edge-3"])
    await fail(lookup, "edge-1", ["edge-1", "edge-2", "edge-3"])
    left = expect_picked(await lookup.pick("zh-en", exclude=["edge-2"], **options))
    assert (left.node, left.state) == ("edge-1", "Ejected")
    last = expect_picked(await lookup.pick("zh-en", exclude=["edge-1", "edge-2"], **options))
    assert (last.node, last.state) == ("edge-3", "Suspect")


async def test_an_affinity_key_moves_only_if_its_node_is_ejected_and_comes_back(client: Client, lookup: Lookup) -> None:
    await write_fleet(client, TEN)
    keys = [f"user-{number}" for number in range(40)]
    before = {key: expect_picked(await lookup.pick("zh-en", key=key)).node for key in keys}
    await fail(lookup, before["user-0"])
    during = {key: expect_picked(await lookup.pick("zh-en", key=key)).node for key in keys}
    assert {key for key in keys if before[key] != during[key]} == {k for k in keys if before[k] == before["user-0"]}
    await succeed(lookup, before["user-0"])
    assert {key: expect_picked(await lookup.pick("zh-en", key=key)).node for key in keys} == before


async def test_errors_eject_after_three_in_a_row_whoever_reports_them(
    client: Client, lookup: Lookup, other: Lookup
) -> None:
    await write_fleet(client, TEN)
    for reporter in (lookup, other):
        await fail(reporter, "edge-1", kind="error", expected="Counted")
    await succeed(other, "edge-1")
    for reporter in (other, lookup):
        await fail(reporter, "edge-1", kind="error", expected="Counted")
    await fail(other, "edge-1", kind="error")
    assert await ejected(client) == {"edge-1"}


async def test_an_ejected_node_is_tried_once_a_second_after_30_s_and_a_success_ends_it(
    client: Client, lookup: Lookup, other: Lookup
) -> None:
    await write_fleet(client, TEN)
    await fail(lookup, "edge-1")
    await let_pass(client, 20)
    assert "edge-1" not in await picks(other, 30)
    await let_pass(client, 10)
    begun = time.monotonic()
    tried = [expect_picked(await other.pick("zh-en")) for _ in range(20)]
    states = [picked.state for picked in tried if picked.node == "edge-1"]
    assert states == ["Trial"] * len(states)
    assert 1 <= len(states) <= 1 + (time.monotonic() - begun)
    await let_pass(client, 1)
    trial = [picked for picked in [expect_picked(await other.pick("zh-en", reserve=5))] if picked.node == "edge-1"]
    assert [picked.state for picked in trial] == ["Trial"]
    assert trial[0].endpoints["asr"][0].address == "10.0.3.1"
    await other.report_success(trial[0])
    assert await ejected(client) == set()
    assert await client.execute_command("EXISTS", FAILURES) == 1  # its source is not believed for five minutes
    assert "edge-1" in await picks(other, 200)


async def test_a_failed_trial_doubles_the_time_up_to_five_minutes(client: Client, lookup: Lookup) -> None:
    await write_fleet(client, TEN)
    await fail(lookup, "edge-1")
    for seconds in (30, 60, 120, 240, 300, 300):
        await let_pass(client, seconds - 10)
        assert "edge-1" not in await picks(lookup, 20)
        await let_pass(client, 10)
        trial = expect_picked(await lookup.pick("zh-en"))
        assert (trial.node, trial.state) == ("edge-1", "Trial")
        assert await lookup.report_failure(trial, "error") is ReportEffect.EJECTED


async def test_an_affinity_key_tries_its_own_node_only(client: Client, lookup: Lookup) -> None:
    await write_fleet(client, TEN)
    keys = [f"user-{number}" for number in range(40)]
    owner = {key: expect_picked(await lookup.pick("zh-en", key=key)).node for key in keys}
    failed = owner["user-0"]
    await fail(lookup, failed)
    await let_pass(client, 31)
    strangers = [key for key in keys if owner[key] != failed]
    assert all([expect_picked(await lookup.pick("zh-en", key=key)).node == owner[key] for key in strangers])
    trial = expect_picked(await lookup.pick("zh-en", key="user-0"))
    assert (trial.node, trial.state) == (failed, "Trial")


@pytest.mark.parametrize("change", ["port", "stop", "leave"])
async def test_a_changed_service_is_no_longer_ejected_and_late_reports_do_not_count(
    client: Client, lookup: Lookup, change: str
) -> None:
    writer = await write_fleet(client, TEN)
    picked = await pick_of(lookup, "edge-1", TEN)
    await lookup.report_failure(picked)
    if change == "port":
        await writer.replace_node(node("edge-1", 6008))
    elif change == "stop":
        await writer.replace_node(replace(node("edge-1"), endpoints=""))
        await writer.replace_node(node("edge-1"))
    else:
        await writer.drop_node("edge-1")
    assert await ejected(client) == set()
    if change != "leave":
        assert "edge-1" in await picks(lookup, 200)
    if change == "port":
        assert await lookup.report_failure(picked) is ReportEffect.OUTDATED
        assert await ejected(client) == set()


async def test_the_service_of_a_type_that_fails_is_answered_last_and_the_node_stays(
    client: Client, lookup: Lookup
) -> None:
    writer = await write_fleet(client, TEN)
    await writer.replace_node(node("edge-1", 6007, "asr|second|6010|http|10.0.3.1", "tts|voice|7000||10.0.3.1"))
    picked = await pick_of(lookup, "edge-1", TEN)
    first, second = picked.endpoints["asr"]
    await lookup.report_failure(picked)
    for _ in range(10):
        again = await pick_of(lookup, "edge-1", TEN)
        assert (again.state, again.endpoints["asr"]) == ("Ready", (second, first))
    await lookup.report_failure(again)
    assert (await pick_of(lookup, "edge-1", TEN)).state == "Ejected"
    assert (await pick_of(lookup, "edge-1", TEN, types=["tts"])).state == "Ready"


async def test_a_report_may_name_the_types_that_failed(client: Client, lookup: Lookup) -> None:
    writer = await write_fleet(client, TEN)
    await writer.replace_node(node("edge-1", 6007, "tts|voice|7000||10.0.3.1"))
    picked = await pick_of(lookup, "edge-1", TEN, types=["asr", "tts"])
    assert await lookup.report_failure(picked, types=["tts"]) is ReportEffect.EJECTED
    assert (await pick_of(lookup, "edge-1", TEN)).state == "Ready"
    assert (await pick_of(lookup, "edge-1", TEN, types=["tts"])).state == "Ejected"
    with pytest.raises(LookupError, match="without an endpoint of type llm"):
        await lookup.report_failure(picked, types=["llm"])


async def test_a_node_without_endpoints_is_ejected_as_a_whole(client: Client, lookup: Lookup) -> None:
    writer = await write_fleet(client, TEN)
    members = frozenset({"edge-1", "edge-2"}), frozenset[str](), frozenset[str]()
    await writer.replace_pool(PoolDocument("any", "u2", None, None, *members, services=PoolServices(())))
    picked = expect_picked(await lookup.pick("any", exclude=["edge-2"]))
    assert picked.endpoints == {}
    assert await lookup.report_failure(picked) is ReportEffect.EJECTED
    assert {expect_picked(await lookup.pick("any")).node for _ in range(20)} == {"edge-2"}
    assert (await pick_of(lookup, "edge-1", TEN)).state == "Ejected"  # in every pool
    await lookup.report_success(picked)
    assert await ejected(client) == set()


async def test_a_release_reports_in_the_same_call(client: Client, lookup: Lookup) -> None:
    await write_fleet(client, TEN)
    for failed, expected in (("unreachable", {"edge-1"}), (False, set()), (None, set())):
        reservation = (await pick_of(lookup, "edge-1", TEN, reserve=30)).reservation
        assert reservation is not None
        renewed = await lookup.renew(reservation, 60)
        assert renewed is not None
        assert await lookup.release(renewed, failed=failed)  # type: ignore[arg-type]
        assert await ejected(client) == expected
        assert await client.execute_command("EXISTS", *KEYS.load) == 0
    with pytest.raises(TypeError, match="not its id"):
        await lookup.release("some-id", failed="error")


async def test_the_blocking_client_reports_too(server: RedisServer, client: Client) -> None:
    await write_fleet(client, TEN)
    with SyncLookup.from_url(server.url, namespace="speech", source="one") as lookup:
        picked = expect_picked(lookup.pick("zh-en", reserve=5))
        assert picked.reservation is not None
        assert lookup.report_failure(picked, "error") is ReportEffect.COUNTED
        assert lookup.report_success(picked) is ReportEffect.COUNTED
        assert lookup.release(picked.reservation, failed="unreachable")
        assert await ejected(client) == {picked.node}
        await let_pass(client, 31)
        assert expect_picked(lookup.pick("zh-en")).state == "Trial"


async def test_a_flush_ends_all_ejections(client: Client, lookup: Lookup) -> None:
    await write_fleet(client, TEN)
    await fail(lookup, "edge-1")
    await client.execute_command("UNLINK", FAILURES, SOURCES)
    assert "edge-1" in await picks(lookup, 200)


@pytest.mark.parametrize("garbage", ["text", ".ejected"])
async def test_garbage_in_the_keys_of_failures_stops_no_pick(client: Client, lookup: Lookup, garbage: str) -> None:
    await write_fleet(client, TEN)
    if garbage == "text":
        await client.execute_command("SET", FAILURES, "x")
    else:
        await client.execute_command("HSET", FAILURES, ".ejected", "one two\n\n| % .*\nedge-1 fw asr zh-en 1 2 3")
    for options in OPTIONS:
        assert expect_picked(await lookup.pick("zh-en", **options)).state == "Ready"


@pytest.mark.parametrize("source", ["", "two words", "a,b", "x" * 129])
def test_an_invalid_source_is_refused(server: RedisServer, source: str) -> None:
    with pytest.raises(ValueError, match="source must have"):
        SyncLookup.from_url(server.url, namespace="speech", source=source)
