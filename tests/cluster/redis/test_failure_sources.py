"""Dispatchers whose reports mislead: cut off, broken, without IPv6, a poison request; and real mass failures (E8)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.failure_fleet import dispatcher, ejected, let_pass, pick_of, picks, write_fleet
from tests.support.redis_fixture_lookup import expect_picked, names

from hotpool.lookup import Lookup, Picked, ReportEffect

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from hotpool.projection.connection.async_connection import Client

TEN = sorted(names(10))


async def serve(lookup: Lookup, reaches: Callable[[str], bool], requests: int) -> tuple[int, list[ReportEffect]]:
    """Send requests as a dispatcher does. Return the number that failed, and the effects of its reports of them."""
    effects = []
    for _ in range(requests):
        picked = expect_picked(await lookup.pick("zh-en", strategy="least-loaded"))
        if reaches(picked.node):
            await lookup.report_success(picked)
        else:
            effects.append(await lookup.report_failure(picked))
    return len(effects), effects


def only(reached: Collection[str]) -> Callable[[str], bool]:
    return lambda name: name in reached


async def test_a_dispatcher_that_is_cut_off_ejects_no_node_for_others(client: Client) -> None:
    await write_fleet(client, TEN)
    good, cut_off = dispatcher(client, "good"), dispatcher(client, "cut-off")
    for lookup in (good, cut_off):
        await serve(lookup, only(TEN), 20)
    _, effects = await serve(cut_off, only(()), 20)
    assert effects[:6] == [ReportEffect.EJECTED] * 5 + [ReportEffect.CUT_OFF]
    assert set(effects[6:]) == {ReportEffect.CUT_OFF}
    assert await ejected(client) == set()
    assert (await picks(good, 200)).keys() == set(TEN)
    await serve(cut_off, only(TEN), 1)  # it is back, and its reports count again
    assert (await serve(cut_off, only(TEN[1:]), 100))[0] == 1
    assert await ejected(client) == {TEN[0]}


async def test_a_broken_dispatcher_that_reports_everything_as_failed_harms_others_for_a_moment(client: Client) -> None:
    await write_fleet(client, TEN)
    good, broken = dispatcher(client, "good"), dispatcher(client, "broken")
    harmed = 0
    for _ in range(30):
        await serve(broken, only(()), 1)
        assert (await serve(good, only(TEN), 3))[0] == 0
        harmed += bool(await ejected(client))
    assert harmed == 5  # until its sixth report
    assert await ejected(client) == set()


async def test_a_broken_dispatcher_in_a_pool_of_two_leaves_one_node_to_others_until_its_second_report(
    client: Client,
) -> None:
    await write_fleet(client, TEN[:2])
    good, broken = dispatcher(client, "good"), dispatcher(client, "broken")
    assert (await serve(broken, only(()), 2))[1] == [ReportEffect.EJECTED, ReportEffect.CUT_OFF]
    assert (await picks(good, 50)).keys() == set(TEN[:2])


async def test_a_pool_of_two_with_a_dead_node_offers_the_other_and_with_two_dead_nodes_both(client: Client) -> None:
    await write_fleet(client, TEN[:2])
    one, two = dispatcher(client, "one"), dispatcher(client, "two")
    await serve(one, only(TEN[1:2]), 10)
    assert (await picks(two, 50)).keys() == {TEN[1]}
    failed, _ = await serve(one, only(()), 10)
    assert failed == 10
    assert await ejected(client) == set(TEN[:2])
    assert (await picks(two, 50)).keys() == set(TEN[:2])  # a pool is never emptied


async def test_a_rack_of_five_in_ten_dead_costs_few_requests_of_all_dispatchers(client: Client) -> None:
    await write_fleet(client, TEN)
    lookups = [dispatcher(client, f"dispatcher-{number}") for number in range(3)]
    failed = sum([(await serve(lookup, only(TEN[5:]), 1))[0] for _ in range(60) for lookup in lookups])
    assert await ejected(client) == set(TEN[:5])
    assert failed == 5
    await let_pass(client, 31)
    failed = sum([(await serve(lookup, only(TEN[5:]), 1))[0] for _ in range(60) for lookup in lookups])
    assert failed == 5  # a trial of each


async def test_nine_of_ten_dead_leave_the_tenth_to_a_dispatcher_that_reaches_it(client: Client) -> None:
    await write_fleet(client, TEN)
    lookups = [dispatcher(client, f"dispatcher-{number}") for number in range(3)]
    for _ in range(40):
        for lookup in lookups:
            await serve(lookup, only(TEN[9:]), 1)
    assert await ejected(client) == set(TEN[:9])


async def test_a_dispatcher_without_ipv6_ejects_nodes_for_others_once_and_is_then_not_believed(client: Client) -> None:
    await write_fleet(client, TEN)
    good, without = dispatcher(client, "good"), dispatcher(client, "without-ipv6")
    ipv6_only = set(TEN[:4])
    await serve(without, only(TEN[4:]), 40)
    assert await ejected(client) == ipv6_only
    await let_pass(client, 31)
    assert (await serve(good, only(TEN), 40))[0] == 0
    assert await ejected(client) == set()
    failed, effects = await serve(without, only(TEN[4:]), 60)
    assert failed > 0
    assert set(effects) == {ReportEffect.DOUBTED}
    assert (await picks(good, 300)).keys() == set(TEN)
    picked = await pick_of(good, TEN[0], TEN)
    assert await good.report_failure(picked) is ReportEffect.EJECTED  # others are believed


async def test_a_poison_request_that_is_retried_on_three_nodes_ejects_none(client: Client) -> None:
    await write_fleet(client, TEN)
    lookup = dispatcher(client, "one")
    for _ in range(4):
        tried: list[Picked] = []
        while len(tried) < 3:
            picked = expect_picked(await lookup.pick("zh-en", exclude=[known.node for known in tried]))
            assert await lookup.report_failure(picked, "error") is ReportEffect.COUNTED
            tried.append(picked)
        for name in TEN:
            await lookup.report_success(await pick_of(lookup, name, TEN))
    assert await ejected(client) == set()


async def test_a_source_without_a_success_in_the_last_minute_ejects_at_most_half(client: Client) -> None:
    await write_fleet(client, TEN)
    lookup = dispatcher(client, "one")
    await serve(lookup, only(TEN), 5)
    await let_pass(client, 61)
    _, effects = await serve(lookup, only(()), 6)
    assert effects == [ReportEffect.EJECTED] * 5 + [ReportEffect.CUT_OFF]
