"""Picks that wait for a node, on a real server, with both clients (E10)."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from tests.support.capacity_fleet import asr, slots_in_use, write_fleet
from tests.support.redis_fixture_lookup import claimed_writer, expect_picked, names, node_of, pool, reason_of
from tests.support.redis_fleet import until
from tests.support.waiting_clients import LONG, WAITERS, WAKEUPS, Dispatcher, reads, reserved, waiting

from hotpool.lookup import Lookup, NoMember, Reason
from hotpool.projection.documents import NodeDocument, PoolServices

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from hotpool.projection.connection.async_connection import Client
    from hotpool.projection.writer import RedisWriter

pytestmark = pytest.mark.usefixtures("lines_only")


async def test_a_waiting_reservation_is_served_when_another_client_releases(
    client: Client, lookup: Lookup, dispatcher: Dispatcher
) -> None:
    await write_fleet(client, {"edge-1": asr(1)})
    held = await reserved(lookup)
    async with waiting(client, dispatcher.pick(reserve=LONG, wait=LONG)) as pick:
        assert await lookup.release(held, failed=False)
        assert node_of(await pick) == "edge-1"
    assert await slots_in_use(client) == {"edge-1 fw": 1}


EVENTS: dict[str, tuple[dict[str, Any], Callable[[RedisWriter], Awaitable[Any]]]] = {
    "a pool is made": ({"pool": "new"}, lambda writer: writer.replace_pool(pool(["n"], name="new"))),
    "a large pool is made": ({"pool": "new"}, lambda writer: writer.replace_pool(pool(names(300), name="new"))),
    "a member joins": ({"exclude": ["edge-1", "edge-2"]}, lambda writer: writer.replace_pool(pool(names(4)))),
    "a member is drained no longer": ({"pool": "bare"}, lambda writer: writer.replace_pool(pool(["d"], name="bare"))),
    "a Suspect member joins": ({"pool": "bare"}, lambda writer: writer.replace_pool(pool([], ["d"], name="bare"))),
    "an endpoint appears": (
        {"types": ["tts"]},
        lambda writer: writer.replace_node(NodeDocument("edge-1", (), "tts|t|6007||10.0.3.7")),
    ),
    "the projection is confirmed": ({"max_age": 5}, lambda writer: writer.stamp(complete=True)),
    "the second pool is made": (
        {"pool": ["new", "bare"]},
        lambda writer: writer.replace_pool(pool(["d"], name="bare")),
    ),
}


@pytest.mark.parametrize("event", EVENTS)
async def test_a_waiting_pick_is_served_as_soon_as_a_node_can_be_picked(
    client: Client, dispatcher: Dispatcher, event: str
) -> None:
    options, happens = EVENTS[event]
    writer = await claimed_writer(client)
    members = replace(pool(["edge-1", "edge-2"]), services=PoolServices(("asr",)))
    await writer.replace_pool(members)
    await writer.replace_pool(pool([], [], ["d"], name="bare"))
    async with waiting(
        client, dispatcher.pick(options.get("pool", "zh-en"), wait=LONG, **_without_pool(options))
    ) as pick:
        await happens(writer)
        expect_picked(await pick)


def _without_pool(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name != "pool"}


async def test_a_pick_by_key_waits_for_the_pool_of_the_key(client: Client, dispatcher: Dispatcher) -> None:
    writer = await claimed_writer(client)
    async with waiting(client, dispatcher.pick_key(["zh-en", "*-en"], wait=LONG)) as pick:
        await writer.replace_pool(replace(pool(["n"], name="any"), key="*-en"))
        assert expect_picked(await pick).pool == "any"
    async with waiting(client, dispatcher.pick_key("en-zh", wait=LONG)) as pick:
        await writer.replace_pool(replace(pool(["n"], name="other"), key="en-zh"))
        assert expect_picked(await pick).pool == "other"


async def test_a_higher_limit_is_noticed_although_the_pool_was_just_found_full(
    client: Client, lookup: Lookup, dispatcher: Dispatcher
) -> None:
    """A pool found full is remembered for 100 ms, but not across a change of a node or pool."""
    writer = await write_fleet(client, {"edge-1": asr(1)})
    await reserved(lookup)
    async with waiting(client, dispatcher.pick(reserve=LONG, wait=LONG)) as pick:
        for _ in range(20):
            assert reason_of(await lookup.pick("zh-en", reserve=LONG)) is Reason.FULL
            await writer.replace_node(asr(1).document("edge-1"))
        assert not pick.done()
        await writer.replace_node(asr(2).document("edge-1"))
        assert node_of(await pick) == "edge-1"


async def test_an_expired_reservation_makes_room_without_a_line(
    client: Client, lookup: Lookup, dispatcher: Dispatcher
) -> None:
    await write_fleet(client, {"edge-1": asr(1)})
    expect_picked(await lookup.pick("zh-en", reserve=0.4))
    async with asyncio.timeout(20):
        assert node_of(await dispatcher.pick(reserve=LONG, wait=LONG)) == "edge-1"


async def test_after_the_time_the_answer_has_the_reasons(
    client: Client, lookup: Lookup, dispatcher: Dispatcher
) -> None:
    await write_fleet(client, {"edge-1": asr(1)})
    await reserved(lookup)
    answer = await dispatcher.pick(["new", "zh-en"], reserve=LONG, wait=0.2)
    assert isinstance(answer, NoMember)
    assert [found.reason for found in answer.candidates] == [Reason.POOL_UNKNOWN, Reason.FULL]
    assert (answer.wait_denied, answer.candidates[1].counts.in_use) == (False, 1)
    assert 50 < (answer.retry_after or 0) <= LONG
    assert reason_of(await dispatcher.pick(reserve=LONG, wait=0)) is Reason.FULL


async def test_the_oldest_waiter_of_a_client_is_served_first(
    client: Client, lookup: Lookup, dispatcher: Dispatcher
) -> None:
    await write_fleet(client, {"edge-1": asr(3)})
    held = [await reserved(lookup) for _ in range(3)]
    order: list[int] = []

    async def wait(number: int) -> None:
        # The second half has requests of another group: in it, too, the oldest one of all comes first.
        expect_picked(await dispatcher.pick(reserve=LONG, wait=LONG, exclude=["none"] if number % 2 else []))
        order.append(number)

    tasks = []
    for number in range(6):
        tasks.append(asyncio.create_task(wait(number)))
        await until(lambda: dispatcher.waiters() == len(tasks))
    await reads(client)
    for served, reservation in enumerate(held, start=1):
        await until(dispatcher.is_idle)  # else one that tries again just now is lucky
        await lookup.release(reservation)
        await until(partial(_are_served, order, served))
    assert order == [0, 1, 2]
    await dispatcher.close()
    await asyncio.gather(*tasks, return_exceptions=True)


def _are_served(order: list[int], number: int) -> bool:
    return len(order) >= number


async def test_many_waiters_do_not_poll_and_all_of_them_are_served(client: Client, lookup: Lookup) -> None:
    await write_fleet(client, {"edge-1": asr(1)})
    writer = await claimed_writer(client, 4)
    picks = [asyncio.create_task(lookup.pick("new", wait=LONG)) for _ in range(200)]
    await reads(client)
    await client.execute_command("CONFIG", "RESETSTAT")
    await asyncio.sleep(1.2)  # a time in which a client that polls would ask
    stats = await client.execute_command("INFO", "commandstats")
    assert "cmdstat_fcall_ro" not in stats
    assert stats["cmdstat_xread"]["calls"] <= 2
    await writer.replace_pool(pool(names(4), name="new"))
    assert {node_of(found) for found in await asyncio.gather(*picks)} <= names(4)


async def test_nothing_is_written_while_nobody_waits(client: Client, lookup: Lookup) -> None:
    writer = await write_fleet(client, {"edge-1": asr(1)})
    await lookup.release(await reserved(lookup))
    await writer.replace_pool(pool(["edge-1"]))
    assert await client.execute_command("EXISTS", WAKEUPS, WAITERS) == 0


@pytest.mark.parametrize("wait", [-1, 86_401, float("nan")])
async def test_an_invalid_time_to_wait_is_refused(lookup: Lookup, wait: float) -> None:
    with pytest.raises(ValueError, match="wait must be from 0 to 86400 seconds"):
        await lookup.pick("zh-en", wait=wait)


async def test_the_operator_counts_waiters_by_pool(client: Client, lookup: Lookup, dispatcher: Dispatcher) -> None:
    writer = await write_fleet(client, {"edge-1": asr(1)})
    await reserved(lookup)
    assert await writer.waiters() == {}
    async with waiting(client, dispatcher.pick(reserve=LONG, wait=LONG)) as pick:
        other = asyncio.create_task(lookup.pick("new", wait=LONG))
        await reads(client, 2)
        assert await writer.waiters() == {"zh-en": 1, "new": 1}
        for number, text in enumerate(("1 zh-en 7", "garbage", "", "x zh-en 7")):
            await client.execute_command("HSET", WAITERS, number, text)
        await client.execute_command("HSET", WAITERS, "odd", f"{9 * 10**12} zh-en new {10**20}")
        assert await writer.waiters() == {"zh-en": 1, "new": 1}
        assert await client.execute_command("HLEN", WAITERS) == 3
        await writer.replace_node(asr(2).document("edge-1"))
        await pick
        other.cancel()
        await asyncio.gather(other, return_exceptions=True)
