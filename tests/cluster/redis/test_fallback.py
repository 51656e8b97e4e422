"""Picks from several pools in order, in one round trip, on a real server (E10)."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from redis.exceptions import ResponseError
from tests.support.capacity_fleet import asr, slots_in_use, write_fleet
from tests.support.redis_fixture_lookup import KEYS, claimed_writer, expect_picked, names, node_loads, node_of, pool

from hotpool.lookup import Lookup, NoMember, Reason, SyncLookup
from hotpool.projection.documents import PoolServices
from hotpool.projection.functions import LIBRARY

if TYPE_CHECKING:
    from hotpool.projection.connection.async_connection import Client
    from localfleet.redis_server import RedisServer

STRATEGIES: list[dict[str, Any]] = [{}, {"strategy": "least-loaded"}, {"key": "user-1"}, {"reserve": 60}]


def candidates(answer: object) -> list[tuple[str, Reason]]:
    """Return pool and reason of each candidate."""
    assert isinstance(answer, NoMember), answer
    return [(found.pool, found.reason) for found in answer.candidates]


async def calls_of(client: Client) -> int:
    stats = await client.execute_command("INFO", "commandstats")
    return sum(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("fcall", "fcall_ro"))


@pytest.mark.parametrize("how", STRATEGIES, ids=["uniform", "least-loaded", "affinity", "reserve"])
async def test_the_first_pool_in_order_that_has_a_member_answers(
    client: Client, lookup: Lookup, how: dict[str, Any]
) -> None:
    writer = await claimed_writer(client)
    for name in ("a", "b", "c"):
        await writer.replace_pool(pool(names(3, name), name=name))
    picked = expect_picked(await lookup.pick(["a", "b", "c"], **how))
    assert (picked.pool, picked.node in names(3, "a")) == ("a", True)
    await writer.replace_pool(pool([], [], ["a-0"], name="a"))
    assert expect_picked(await lookup.pick(("a", "b", "c"), **how)).pool == "b"
    await writer.replace_pool(pool([], ["b-0"], name="b"))  # a Suspect member of an earlier pool precedes a later pool
    picked = expect_picked(await lookup.pick(["a", "b", "c"], **how))
    assert (picked.pool, picked.node, picked.state) == ("b", "b-0", "Suspect")
    picked = expect_picked(await lookup.pick(["missing", "a", "b", "c"], exclude=["b-0"], **how))
    assert (picked.pool, picked.node in names(3, "c")) == ("c", True)
    if "reserve" in how:
        assert picked.reservation is not None
        assert (await node_loads(client))[picked.node] == 1
        assert await lookup.release(picked.reservation)


async def test_without_a_member_each_pool_has_its_reason_and_counts(client: Client, lookup: Lookup) -> None:
    writer = await write_fleet(client, {"edge-1": asr(1)})
    await writer.replace_pool(pool([], [], ["d"], name="draining"))
    await writer.replace_pool(replace(pool(["x", "y"], name="bare"), services=PoolServices(("asr",))))
    held = expect_picked(await lookup.pick("zh-en", reserve=60))
    asked = ["missing", "draining", "bare", "zh-en"]
    answer = await lookup.pick(asked, types=["asr"], reserve=60)
    reasons = [Reason.POOL_UNKNOWN, Reason.ONLY_DRAINING, Reason.NO_ENDPOINT, Reason.FULL]
    assert candidates(answer) == list(zip(asked, reasons, strict=True))
    assert isinstance(answer, NoMember)
    assert (answer.pool, answer.reason, answer.counts) == ("missing", *vars_of(answer.candidates[0]))
    draining, bare, full = answer.candidates[1:]
    assert (draining.counts.draining, bare.counts.no_endpoint) == (1, 2)
    assert (full.counts.full, full.counts.in_use, full.counts.total) == (1, 1, 1)
    assert answer.retry_after == full.retry_after
    assert 50 < (answer.retry_after or 0) <= 60
    assert await slots_in_use(client) == {"edge-1 fw": 1}
    stale = await lookup.pick(asked, max_age=0)
    assert candidates(stale) == [(name, Reason.STALE) for name in asked]
    assert held.reservation is not None
    await lookup.release(held.reservation)
    assert expect_picked(await lookup.pick(asked, types=["asr"], reserve=60)).pool == "zh-en"


def vars_of(found: NoMember) -> tuple[Reason, object]:
    return found.reason, found.counts


async def test_a_reservation_falls_back_to_a_pool_with_room(client: Client, lookup: Lookup) -> None:
    writer = await write_fleet(client, {"edge-1": asr(1), "edge-2": asr(2)})
    await writer.replace_pool(replace(pool(["edge-1"], name="first"), services=PoolServices(("asr",))))
    taken = [expect_picked(await lookup.pick(["first", "zh-en"], reserve=60)) for _ in range(3)]
    assert [(one.pool, one.node) for one in taken] == [("first", "edge-1"), ("zh-en", "edge-2"), ("zh-en", "edge-2")]
    assert candidates(await lookup.pick(["first", "zh-en"], reserve=60)) == [
        ("first", Reason.FULL),
        ("zh-en", Reason.FULL),
    ]
    assert expect_picked(await lookup.pick(["first", "zh-en"])).pool == "first"  # a plain pick refuses none
    assert await slots_in_use(client) == {"edge-1 fw": 1, "edge-2 fw": 2}


async def test_keys_are_found_by_the_index_in_one_round_trip(client: Client, lookup: Lookup) -> None:
    """Also a key without a pool, once the other ones are known."""
    writer = await claimed_writer(client)
    await writer.replace_pool(pool(names(2, "any"), name="*-en"))
    pairs = ["zh-en", "*-en"]
    assert node_of(await lookup.pick_key("speech", pairs)) in names(2, "any")
    await client.execute_command("CONFIG", "RESETSTAT")
    assert expect_picked(await lookup.pick_key("speech", pairs)).pool == "*-en"
    assert await calls_of(client) == 1
    await writer.replace_pool(pool(names(2), name="zh-en"))
    assert expect_picked(await lookup.pick_key("speech", pairs)).pool == "zh-en"
    await client.execute_command("CONFIG", "RESETSTAT")
    assert expect_picked(await lookup.pick_key("speech", pairs, reserve=60)).pool == "zh-en"
    assert await calls_of(client) == 1
    await writer.drop_pool("zh-en")
    await writer.drop_pool("*-en")
    assert candidates(await lookup.pick_key("speech", pairs)) == [
        ("speech/zh-en", Reason.POOL_UNKNOWN),
        ("speech/*-en", Reason.POOL_UNKNOWN),
    ]


async def test_a_key_whose_pool_has_another_name_is_found_again(client: Client, lookup: Lookup) -> None:
    writer = await claimed_writer(client)
    await writer.replace_pool(replace(pool(["old"], name="old"), key="zh-en"))
    assert node_of(await lookup.pick_key("speech", ["zh-en"])) == "old"
    await writer.drop_pool("old")
    await writer.replace_pool(replace(pool(["new"], name="new"), key="zh-en"))
    await writer.replace_pool(pool(["any"], name="*-en"))
    assert node_of(await lookup.pick_key("speech", ["zh-en", "*-en"])) == "new"


async def test_an_ejected_node_of_the_first_pool_is_tried_before_a_later_pool(client: Client, lookup: Lookup) -> None:
    """A pool is never emptied by failure reports; when the trial is due, it is done in the same order."""
    writer = await claimed_writer(client)
    await writer.replace_pool(pool(["a"], name="a"))
    await writer.replace_pool(pool(["b"], name="b"))
    await lookup.report_failure(expect_picked(await lookup.pick("a")))
    picked = expect_picked(await lookup.pick(["a", "b"]))
    assert (picked.node, picked.state) == ("a", "Ejected")
    record = (await client.execute_command("HGET", KEYS.failures[0], ".ejected")).decode().split(" ")
    record[7] = "1"  # the end of the ejection
    for name in (".ejected", "a -"):
        await client.execute_command("HSET", KEYS.failures[0], name, " ".join(record))
    picked = expect_picked(await lookup.pick(["missing", "a", "b"]))
    assert (picked.node, picked.state) == ("a", "Trial")
    assert expect_picked(await lookup.pick(["a", "b"])).state == "Ejected"


async def test_both_clients_refuse_no_pool_and_too_many(server: RedisServer, lookup: Lookup) -> None:
    with SyncLookup.from_url(server.url, namespace="speech") as blocking:
        for pools in ([], [""], ["a"] * 33):
            with pytest.raises(ValueError, match="1 to 32 pools"):
                await lookup.pick(pools)
            with pytest.raises(ValueError, match="1 to 32 pools"):
                blocking.pick_key("speech", pools)


async def test_the_blocking_client_falls_back_too(server: RedisServer, client: Client) -> None:
    writer = await claimed_writer(client)
    await writer.replace_pool(pool(["b"], name="b"))
    with SyncLookup.from_url(server.url, namespace="speech") as blocking:
        assert expect_picked(blocking.pick(["a", "b"], reserve=60)).pool == "b"
        assert node_of(blocking.pick_key("speech", ["a", "b"])) == "b"
        assert candidates(blocking.pick(["a", "c"])) == [("a", Reason.POOL_UNKNOWN), ("c", Reason.POOL_UNKNOWN)]


@pytest.mark.parametrize("function", ["pick_first", "pick_first_trial", "reserve_first"])
async def test_invalid_arguments_are_refused_and_write_nothing(client: Client, function: str) -> None:
    await claimed_writer(client)
    pool_keys = (*KEYS.pool("a")[:3], KEYS.services("a"))
    one = [KEYS.meta, *pool_keys[:3], KEYS.endpoints, pool_keys[3], *KEYS.load]
    identity = ("id", "1", "1000") if function == "reserve_first" else ()
    how = (*identity, "uniform", "0.5")
    cases = [
        ([], ()),
        (one, ("1",)),
        ([*one, KEYS.index], ("0", *how)),
        ([*one, KEYS.index], ("33", *[""] * 33, *how)),
        ([*one, KEYS.index], ("2", "", "", *how)),
        ([*one, KEYS.index], ("x", "", *how)),
        ([*one, KEYS.index], (str(math.pi), "", *how)),
        ([*one, KEYS.index], ("1", "", *identity, "uniform")),
        ([*one, KEYS.index], ("1", "", *identity, "round-robin", "0.5")),
    ]
    for keys, arguments in cases:
        with pytest.raises(ResponseError, match=r"BADARGUMENT|at least one key|wrong number"):
            await client.execute_command("FCALL", f"{LIBRARY}_{function}", len(keys), *keys, *arguments)
    valid = await client.execute_command("FCALL", f"{LIBRARY}_{function}", 10, *one, KEYS.index, "1", "", *how)
    assert valid.startswith(b"- PoolUnknown ")
    assert not await client.execute_command("EXISTS", *KEYS.load)
