"""Reservations within the limits of services and types, on a real server (E9)."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from tests.support.capacity_fleet import SLOT_ENTRIES, SLOT_EXPIRIES, SLOTS, Limits, asr, slots_in_use, write_fleet
from tests.support.redis_fixture_lookup import EXPIRIES, KEYS, expect_picked, names, node_loads

from hotpool.lookup import Lookup, NoMember, Picked, Reason, Reservation
from hotpool.projection.functions import LIBRARY

if TYPE_CHECKING:
    from hotpool.projection.connection.async_connection import Client

STRATEGIES: list[dict[str, Any]] = [{}, {"strategy": "least-loaded"}, {"key": "user-1"}]
ALL = pytest.mark.parametrize("how", STRATEGIES, ids=["uniform", "least-loaded", "affinity"])
CHI_SQUARE_2 = 13.82
"""2 degrees of freedom, one in a thousand."""


async def reserve(lookup: Lookup, **options: Any) -> Reservation | NoMember:
    found = await lookup.pick("zh-en", reserve=options.pop("seconds", 60), **options)
    if isinstance(found, NoMember):
        return found
    assert found.reservation is not None
    return found.reservation


def reason(found: Reservation | NoMember) -> Reason:
    assert isinstance(found, NoMember), found
    return found.reason


async def reserved(lookup: Lookup, **options: Any) -> Reservation:
    found = await reserve(lookup, **options)
    assert isinstance(found, Reservation), found
    return found


@ALL
async def test_reservations_fill_every_slot_and_no_more(client: Client, lookup: Lookup, how: dict[str, Any]) -> None:
    await write_fleet(client, {"a": asr(1), "b": asr(2), "c": asr(3)})
    taken = [await reserved(lookup, **how) for _ in range(6)]
    assert Counter(one.node for one in taken) == {"a": 1, "b": 2, "c": 3}
    assert {tuple(one.services.items()) for one in taken} == {(("asr", "fw"),)}
    full = await reserve(lookup, **how)
    assert isinstance(full, NoMember)
    assert (full.reason, full.counts.full, full.counts.in_use, full.counts.total) == (Reason.FULL, 3, 6, 6)
    assert full.retry_after is not None
    assert 50 < full.retry_after <= 60
    assert await slots_in_use(client) == {"a fw": 1, "b fw": 2, "c fw": 3}
    await lookup.release(taken[0])
    assert (await reserved(lookup, **how)).node == taken[0].node
    assert reason(await reserve(lookup, **how)) is Reason.FULL


@ALL
async def test_a_full_pool_refuses_reservations_only(client: Client, lookup: Lookup, how: dict[str, Any]) -> None:
    await write_fleet(client, {"a": asr(1)})
    await reserved(lookup)
    assert reason(await reserve(lookup, **how)) is Reason.FULL
    assert expect_picked(await lookup.pick("zh-en", **how)).node == "a"


@pytest.mark.parametrize("how", STRATEGIES[:2], ids=["uniform", "least-loaded"])
async def test_a_pick_prefers_members_with_room(client: Client, lookup: Lookup, how: dict[str, Any]) -> None:
    await write_fleet(client, {"a": asr(1), "b": asr(9), "c": asr(None)})
    await reserved(lookup, exclude=["b", "c"])
    assert {expect_picked(await lookup.pick("zh-en", **how)).node for _ in range(200)} <= {"b", "c"}


async def test_a_reservation_takes_one_service_of_each_type_and_names_it_first(client: Client, lookup: Lookup) -> None:
    """The one with the smallest share in use: without a limit it compares as if it had the limit 1."""
    services = {("asr", "big"): 4, ("asr", "small"): 2, ("nmt", "m"): None}
    await write_fleet(client, {"a": Limits(services)}, ("asr", "nmt"))
    order = []
    for _ in range(6):
        picked = expect_picked(await lookup.pick("zh-en", reserve=60))
        assert picked.reservation is not None
        assert picked.reservation.services == {kind: found[0].service for kind, found in picked.endpoints.items()}
        assert len(picked.endpoints["asr"]) == 2
        order.append(picked.endpoints["asr"][0].service)
    assert (set(order[:2]), Counter(order)) == ({"big", "small"}, {"big": 4, "small": 2})
    assert await slots_in_use(client) == {"a big": 4, "a small": 2, "a m": 6}
    assert reason(await reserve(lookup)) is Reason.FULL
    assert (await reserved(lookup, types=["nmt"])).services == {"nmt": "m"}


async def test_the_limit_of_a_type_holds_for_all_its_services_together(client: Client, lookup: Lookup) -> None:
    services = {("asr", "one"): 2, ("asr", "two"): None, ("nmt", "m"): None}
    await write_fleet(client, {"a": Limits(services, {"asr": 3})}, ("asr", "nmt"))
    for _ in range(3):
        await reserved(lookup, types=["asr"])
    full = await reserve(lookup)
    assert isinstance(full, NoMember)
    assert (full.reason, full.counts.in_use, full.counts.total) == (Reason.FULL, 3, 3)
    await reserved(lookup, types=["nmt"])
    assert sum(number for name, number in (await slots_in_use(client)).items() if name != "a m") == 3


async def test_the_limit_of_a_type_counts_services_that_the_pool_does_not_accept(
    client: Client, lookup: Lookup
) -> None:
    nodes = {"a": Limits({("asr", "gold"): None, ("asr", "silver"): None}, {"asr": 2})}
    await write_fleet(client, nodes, exceptions={"a": "silver"})
    assert (await reserved(lookup)).services == {"asr": "silver"}
    await client.execute_command("HSET", SLOTS, "a gold", 1)
    assert reason(await reserve(lookup)) is Reason.FULL


async def test_services_without_an_endpoint_have_limits_too(client: Client, lookup: Lookup) -> None:
    """Of a service with `scope: local`, say. A pick that asks for endpoints passes over the node."""
    await write_fleet(client, {"a": Limits({("asr", "fw"): 1}, endpoints=False)})
    assert (await lookup.pick("zh-en", reserve=60, types=["asr"])).__class__ is NoMember
    picked = expect_picked(await lookup.pick("zh-en", reserve=60))
    assert picked.reservation is not None
    assert (picked.reservation.services, picked.endpoints) == ({"asr": "fw"}, {})
    assert reason(await reserve(lookup)) is Reason.FULL


async def test_an_ejected_member_with_room_is_taken_last_and_within_its_limit(client: Client, lookup: Lookup) -> None:
    await write_fleet(client, {"a": asr(1), "b": asr(1), "c": asr(9)})
    failing = expect_picked(await lookup.pick("zh-en", exclude=["a", "b"]))
    assert await lookup.report_failure(failing) == "Ejected"
    assert {(await reserved(lookup)).node for _ in range(2)} == {"a", "b"}
    picked = [expect_picked(await lookup.pick("zh-en", reserve=60)) for _ in range(9)]
    assert {(one.node, one.state) for one in picked} == {("c", "Ejected")}
    assert reason(await reserve(lookup)) is Reason.FULL


async def test_a_changed_limit_ends_no_ejection(client: Client, lookup: Lookup) -> None:
    writer = await write_fleet(client, {"a": asr(1), "b": asr(1)})
    await lookup.report_failure(expect_picked(await lookup.pick("zh-en", exclude=["b"])))
    await writer.replace_node(asr(5).document("a"))
    assert {expect_picked(await lookup.pick("zh-en")).node for _ in range(30)} == {"b"}


async def test_a_suspect_member_with_room_is_taken_before_the_pool_is_full(client: Client, lookup: Lookup) -> None:
    await write_fleet(client, {"a": asr(1), "s": asr(1)}, suspect=["s"])
    assert (await reserved(lookup)).node == "a"
    picked = expect_picked(await lookup.pick("zh-en", reserve=60))
    assert (picked.node, picked.state) == ("s", "Suspect")
    assert reason(await reserve(lookup)) is Reason.FULL


@ALL
async def test_a_reservation_finds_the_only_free_member_of_many(
    client: Client, lookup: Lookup, how: dict[str, Any]
) -> None:
    await write_fleet(client, {name: asr(1) for name in names(150)})
    busy = [word for name in names(150) - {"edge-77"} for word in (f"{name} fw", 1)]
    await client.execute_command("HSET", SLOTS, *busy)
    await hold_slots_open(client)
    assert (await reserved(lookup, **how)).node == "edge-77"
    full = await reserve(lookup, **how)
    assert isinstance(full, NoMember)
    assert (full.reason, full.counts.full) == (Reason.FULL, 150)


async def hold_slots_open(client: Client) -> None:
    """Add an entry that belongs to slots set by hand, which a purge would delete otherwise."""
    await client.execute_command("HSET", SLOT_ENTRIES, "hand", "edge-0 fw")
    await client.execute_command("ZADD", SLOT_EXPIRIES, 1e15, "hand")


async def test_expired_reservations_free_their_slots(client: Client, lookup: Lookup) -> None:
    await write_fleet(client, {"a": asr(1)})
    first = await reserved(lookup)
    await expire(client, first.id)
    second = await reserved(lookup)
    assert not await lookup.release(first)
    assert await slots_in_use(client) == {"a fw": 1}
    assert await lookup.release(second)
    assert await slots_in_use(client) == await node_loads(client) == {}
    for key in (SLOTS, SLOT_ENTRIES, SLOT_EXPIRIES):
        assert not await client.execute_command("EXISTS", key)


async def expire(client: Client, identity: str) -> None:
    """Let a reservation expire without waiting."""
    for key in (EXPIRIES, SLOT_EXPIRIES):
        await client.execute_command("ZADD", key, "XX", "CH", 1, identity)


async def test_the_operators_stamp_frees_expired_slots_if_nobody_reserves(client: Client, lookup: Lookup) -> None:
    writer = await write_fleet(client, {"a": asr(1)})
    await expire(client, (await reserved(lookup)).id)
    await writer.stamp(complete=True)
    assert await slots_in_use(client) == {}


@pytest.mark.parametrize("kind", ["expired", "flushed"])
async def test_renewing_a_lost_reservation_reserves_again_on_its_node_if_there_is_room(
    client: Client, lookup: Lookup, kind: str
) -> None:
    nodes = {"a": asr(1), "b": asr(1)}
    await write_fleet(client, nodes)
    lost = await reserved(lookup)
    if kind == "expired":
        await expire(client, lost.id)
    else:
        await client.execute_command("FLUSHALL")
        await write_fleet(client, nodes)
    again = await lookup.renew(lost, 30)
    assert again is not None
    assert (again.id, again.node, again.services) == (lost.id, lost.node, lost.services)
    assert await slots_in_use(client) == {f"{lost.node} fw": 1}
    assert await node_loads(client) == {lost.node: 1}
    await expire(client, again.id)
    other = await reserved(lookup, exclude=[{"a": "b", "b": "a"}[lost.node]])
    assert await lookup.renew(again, 30) is None
    assert await slots_in_use(client) == {f"{other.node} fw": 1}


@pytest.mark.parametrize("limit", [1, None])
@pytest.mark.parametrize("flushed", [False, True])
async def test_a_renewal_that_a_release_overtook_reserves_nothing(
    client: Client, lookup: Lookup, limit: int | None, *, flushed: bool
) -> None:
    await write_fleet(client, {"a": asr(limit)})
    held = await reserved(lookup)
    if flushed:
        await client.execute_command("FLUSHALL")
        await write_fleet(client, {"a": asr(limit)})
    assert await lookup.release(held) != flushed
    assert await lookup.renew(held, 60) is None
    assert await slots_in_use(client) == {}
    assert await node_loads(client) == {}
    other = await reserved(lookup)
    assert await lookup.renew(other, 60)


async def test_a_lost_reservation_of_a_service_that_stopped_stays_lost(client: Client, lookup: Lookup) -> None:
    writer = await write_fleet(client, {"a": asr(1)})
    held = await reserved(lookup)
    await writer.replace_node(Limits({("asr", "other"): 1}).document("a"))
    assert await lookup.renew(held, 30), "it is not lost"
    await expire(client, held.id)
    assert await lookup.renew(held, 30) is None
    assert await slots_in_use(client) == {}


async def test_a_lowered_limit_admits_nothing_until_enough_are_released(client: Client, lookup: Lookup) -> None:
    writer = await write_fleet(client, {"a": asr(3)})
    held = [await reserved(lookup) for _ in range(3)]
    await writer.replace_node(asr(1).document("a"))
    for one in held:
        assert reason(await reserve(lookup)) is Reason.FULL
        assert await lookup.renew(one, 60), "what is held may be renewed"
        await lookup.release(one)
    assert (await reserved(lookup)).node == "a"


async def test_the_former_library_deletes_no_slots(client: Client, lookup: Lookup) -> None:
    """It deletes its keys if they disagree. Slots stay, and a renewal restores the load that it counts."""
    await write_fleet(client, {"a": asr(1)})
    held = await reserved(lookup, weight=3)
    await client.execute_command("UNLINK", EXPIRIES)
    load = EXPIRIES.removesuffix(":expiries")
    keys = (load, f"{load}:entries", EXPIRIES)
    await client.execute_command("FCALL", "hotpool_3_release", 3, *keys, "unknown")
    assert await node_loads(client) == {}
    assert reason(await reserve(lookup)) is Reason.FULL
    assert await lookup.renew(held, 60)
    assert await node_loads(client) == {"a": 3}
    assert await lookup.release(held)
    assert await slots_in_use(client) == {}


async def test_reservations_of_the_former_library_are_load_of_the_node_and_use_no_slot(
    client: Client, lookup: Lookup
) -> None:
    await write_fleet(client, {"a": asr(1), "b": asr(1)})
    await lookup.report_load({"a": 0.5}, source="former", seconds=60)
    assert (await reserved(lookup, strategy="least-loaded")).node == "b"
    assert (await reserved(lookup, strategy="least-loaded")).node == "a"
    assert await slots_in_use(client) == {"a fw": 1, "b fw": 1}


@pytest.mark.parametrize("damaged", [0, 1, 2])
async def test_slots_that_lost_a_key_are_deleted_and_counted_anew(client: Client, lookup: Lookup, damaged: int) -> None:
    await write_fleet(client, {"a": asr(1)})
    await reserved(lookup)
    key = (SLOTS, SLOT_ENTRIES, SLOT_EXPIRIES)[damaged]
    await client.execute_command("SET", key, "x")
    await reserved(lookup)
    assert await slots_in_use(client) == {"a fw": 1}


async def test_least_loaded_picks_in_proportion_to_the_limits(client: Client, lookup: Lookup) -> None:
    """Without any load the members are drawn 1:2:10, and with load the share in use is even."""
    await write_fleet(client, {"a": asr(1), "b": asr(2), "c": asr(10)})
    how: dict[str, Any] = {"strategy": "least-loaded"}
    plain = Counter([expect_picked(await lookup.pick("zh-en", **how)).node for _ in range(390)])
    assert proportion_error(plain) < CHI_SQUARE_2
    alone = Counter[str]()
    for _ in range(260):
        one = await reserved(lookup, **how)
        alone[one.node] += 1
        await lookup.release(one)
    assert proportion_error(alone) < CHI_SQUARE_2
    assert Counter([(await reserved(lookup, **how)).node for _ in range(13)]) == {"a": 1, "b": 2, "c": 10}


def proportion_error(counts: Counter[str]) -> float:
    """Return the chi-square statistic against 1:2:10."""
    expected = {node: counts.total() * part / 13 for node, part in (("a", 1), ("b", 2), ("c", 10))}
    return sum((counts[node] - number) ** 2 / number for node, number in expected.items())


async def test_concurrent_clients_never_hold_more_than_the_limits(client: Client, lookup: Lookup) -> None:
    limits = {"a": 1, "b": 2, "c": 3}
    await write_fleet(client, {name: asr(limit) for name, limit in limits.items()})
    held, most, refused = Counter[str](), Counter[str](), 0

    async def work(seed: int) -> None:
        nonlocal refused
        chance = random.Random(seed)  # noqa: S311 - no secret.
        for _ in range(40):
            found = await reserve(lookup, **chance.choice(STRATEGIES))
            if isinstance(found, NoMember):
                refused += 1
                continue
            held[found.node] += 1
            most[found.node] = max(most[found.node], held[found.node])
            await asyncio.sleep(0)
            held[found.node] -= 1
            await lookup.release(found)

    await asyncio.gather(*(work(seed) for seed in range(12)))
    assert most == limits
    assert refused
    assert await slots_in_use(client) == {}


async def test_a_pool_found_full_is_remembered_until_a_slot_becomes_free(client: Client, lookup: Lookup) -> None:
    """A saturated pool costs Redis less than a pick: only the clock and the id are read."""
    await write_fleet(client, {name: asr(1) for name in names(20)})
    held = [await reserved(lookup) for _ in range(20)]
    async with asyncio.timeout(10):
        while await commands_of_a_refusal(client, lookup) != {"fcall", "time", "hget"}:
            pass  # 100 ms have passed since the last look
    await lookup.release(held[3])
    assert (await reserved(lookup)).node == held[3].node


async def commands_of_a_refusal(client: Client, lookup: Lookup) -> set[str]:
    await client.execute_command("CONFIG", "RESETSTAT")
    assert reason(await reserve(lookup)) is Reason.FULL
    stats = await client.execute_command("INFO", "commandstats")
    return {name.removeprefix("cmdstat_") for name in stats} - {"info", "config|resetstat"}


async def test_an_answer_that_was_lost_is_sent_again_and_takes_one_slot(client: Client, lookup: Lookup) -> None:
    await write_fleet(client, {"a": asr(1)})
    picked = expect_picked(await lookup.pick("zh-en", reserve=60))
    assert isinstance(picked, Picked)
    assert picked.reservation is not None
    assert reason(await reserve(lookup)) is Reason.FULL
    keys = reserve_keys()
    reply = await client.execute_command(
        "FCALL", f"{LIBRARY}_reserve", len(keys), *keys, picked.reservation.id, 1, 60000, "uniform", "0.5"
    )
    assert reply.startswith(b"a Ready ")
    assert await slots_in_use(client) == {"a fw": 1}


def reserve_keys() -> tuple[str, ...]:
    members = KEYS.pool("zh-en")[:3]
    return (KEYS.meta, *members, KEYS.endpoints, KEYS.services("zh-en"), *KEYS.load, *KEYS.slots, KEYS.failures[0])
