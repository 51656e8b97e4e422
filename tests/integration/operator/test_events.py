"""What people are told: Events on transitions, folded and bounded, last in the queue (C6, D5, D10, D11, E5).

The real server: tests/cluster/operator/test_events.py.

Requirements C4, D4.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from kubernetes.aio.client.exceptions import ApiException
from tests.support.builders import (
    H,
    generator_object,
    node_object,
    pool_object,
    report,
    requires,
    speech,
)
from tests.support.llm_fleet import llm, no_llm, publish, small
from tests.support.simulated_fleet import FakeApi, FakeRedis, Fleet, now, operator, refusing, simulated, until

from hotpool.core.generators.admission import pool_name
from hotpool.core.model import Kind
from hotpool.errors import RetryableError
from hotpool.events.aggregator import BURST, RATE

pytestmark = pytest.mark.timeout(60)

LEADING = ("Leading", "leads with term 7")
Fault = Callable[[], BaseException | None]


def reasons(api: FakeApi, name: str) -> list[str]:
    return [reason for reason, _ in api.told(name)]


@simulated
async def test_a_pool_that_fills_up_says_so_soon() -> None:
    api = small(3)
    async with operator(api) as fleet:
        await fleet.beating(1)
        assert api.told("llm") == [
            ("MembersChanged", "3 joined [n0, n1, n2]"),
            ("Ready", "EnoughMembers: 3 Ready members, 1 required"),
        ]
        at, event = api.events[0]
        assert at < 1002
        assert event["regarding"]["name"] == "hotpool-operator"
        assert api.told("hotpool-operator") == [LEADING]


@simulated
async def test_heartbeats_unchanged_reports_and_a_restart_tell_nothing() -> None:
    api = small(3)
    api.put(generator_object("g"))
    api.put(node_object("s", speech("zh", "en")))
    api.put(pool_object("idle", requires=requires("tts", "odd")))
    async with operator(api) as fleet:
        await fleet.beating(60)
        told = len(api.events)
        await fleet.beating(700)
        publish(api, "n0", llm(2, time="later"))
        await fleet.beating(10)
        assert len(api.events) == told
    async with operator(api) as fleet:
        await fleet.beating(60)
    assert [event["reason"] for _, event in api.events[told:]] == ["Leading"]


@simulated
async def test_a_storm_of_500_flips_is_a_handful_of_events() -> None:
    api = small(500)
    async with operator(api) as fleet:
        await fleet.beating(30)
        told = len(api.events)
        for turn in range(500):
            publish(api, f"n{turn}", no_llm(2))
            await asyncio.sleep(0.01)
        fleet.beat()
        await fleet.beating(30)
        assert api.members("llm") == {}
        storm = [event for _, event in api.events[told:]]
        moves = [event for event in storm if event["reason"] == "MembersChanged"]
        assert Counter(event["reason"] for event in storm) == {"MembersChanged": 2, "NotReady": 1}
        assert moves[0]["note"] == "1 left (TypeNotReady 1) [n0]"
        assert moves[1]["note"] == "499 left (TypeNotReady 499)"
        assert moves[1]["series"]["count"] > 1
        assert moves[1]["eventTime"] < moves[1]["series"]["lastObservedTime"]


@simulated
async def test_nodes_that_fall_silent_together_are_told_within_the_rate_after_their_pool() -> None:
    api = small(400)
    async with operator(api) as fleet:
        fleet.beat()
        await asyncio.sleep(2 * H)
        began, told = now(), len(api.events)
        await asyncio.sleep(3 * H)
        posted = api.events[told:]
        assert len(posted) <= BURST + RATE * (now() - began)
        assert len(posted) > 100
        assert reasons(api, "llm").count("MassSilence") == 1
        first = next(at for at, event in posted if event["reason"] == "MassSilence")
        offline = [at for at, event in posted if event["reason"] == "Offline"]
        assert all(at >= first for at in offline)


@simulated
async def test_each_transition_of_a_node_is_told() -> None:
    api = FakeApi()
    api.put(node_object("n0"))
    async with operator(api) as fleet:
        await asyncio.sleep(1)
        publish(api, "n0", llm())
        await fleet.beating(15)
        api.edit(Kind.NODE, "n0", {"spec": {"drain": True}})
        await fleet.beating(15)
        api.edit(Kind.NODE, "n0", {"spec": {"drain": False}})
        await fleet.beating(15)
        await asyncio.sleep(4 * H + 2)
        fleet.beat()
        await asyncio.sleep(2)
        publish(api, "n0", llm(2, leaving=True))
        await asyncio.sleep(2)
        api.edit(Kind.NODE, "n0", {"status": {"report": {"epoch": "x"}}})
        await asyncio.sleep(2)
        expected = [
            "AwaitingReport",
            "Live",
            "Draining",
            "Live",
            "Suspect",
            "Offline",
            "Live",
            "Leaving",
            "InvalidReport",
        ]
        assert reasons(api, "n0") == expected
        kinds = {event["reason"]: event["type"] for _, event in api.events}
        assert (kinds["Live"], kinds["Offline"], kinds["Draining"]) == ("Normal", "Warning", "Normal")


@simulated
async def test_a_node_that_is_cleaned_up_is_told() -> None:
    api = small(3)
    async with operator(api) as fleet:
        fleet.beat()
        api.edit(Kind.NODE, "n1", {"metadata": {"labels": {"site": "berlin"}}})
        await fleet.beating(720, "n2")
        assert set(api.objects[Kind.NODE]) == {"n1", "n2"}
        cleaned = {name: [note for reason, note in api.told(name) if reason == "CleanedUp"] for name in ("n0", "n1")}
        assert cleaned["n0"][-1] == "silent for 600 s: its Lease and its NodeCapability were deleted"
        assert cleaned["n1"] == ["silent for 600 s: its Lease was deleted"]


# Trouble with Events changes nothing else.


def _failing(status: int) -> Fault:
    return lambda: ApiException(status=status, reason="as told")


FAULTS: dict[str, tuple[Fault, float]] = {
    "forbidden": (_failing(403), 0.0),
    "too many": (_failing(429), 0.0),
    "broken": (_failing(500), 0.0),
    "away": (TimeoutError, 2.0),
    "refused": (lambda: OSError("refused"), 0.0),
    "nonsense": (lambda: ValueError("a fault of ours"), 0.0),
    "slow": (lambda: None, 1.9),
}


async def _course(fault: Fault, delay: float) -> tuple[list[Any], list[Any], FakeApi]:
    """A fixed course of everything that is told; what was written, and when."""
    api, redis = small(30), FakeRedis()
    api.put(generator_object("g"))
    api.event_fault, api.event_delay = fault, delay
    async with operator(api, redis) as fleet:
        for turn in range(30):
            publish(api, f"n{turn}", no_llm(2) if turn % 2 else speech("zh", "en", sequence=2))
            await asyncio.sleep(0.2)
        await fleet.beating(20)
        api.edit(Kind.SLICE, "llm-0", {"members": []})
        redis.fault = RetryableError("away")
        await fleet.beating(20)
        redis.fault = None
        await asyncio.sleep(5 * H)
        await fleet.beating(20)
        writes = [(round(write.at, 3), *write.__getstate__()[1:]) for write in api.writes]  # type: ignore[index]
        return writes, [(round(at, 3), *what) for at, *what in redis.log], api


def _run(fault: Fault, delay: float) -> tuple[list[Any], list[Any], FakeApi]:
    found: list[Any] = []

    @simulated
    async def course() -> None:
        found.append(await _course(fault, delay))

    course()
    return found[0]  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def undisturbed() -> tuple[list[Any], list[Any], FakeApi]:
    """The course without trouble."""
    return _run(lambda: None, 0.0)


@pytest.mark.parametrize("name", FAULTS)
def test_events_that_fail_or_hang_change_nothing_else_and_are_not_tried_again(
    undisturbed: tuple[list[Any], list[Any], FakeApi], name: str
) -> None:
    writes, log, well = undisturbed
    troubled_writes, troubled_log, troubled = _run(*FAULTS[name])
    assert len(writes) > 30
    assert troubled_writes == writes
    assert troubled_log == log
    assert len(well.events) > 20
    assert troubled.requests["event"] <= well.requests["event"]
    if name != "slow":
        assert troubled.events == []


@simulated
async def test_who_does_not_lead_tells_nothing() -> None:
    api = small(2)
    fleet = Fleet(api)
    fleet.leases_listed()
    fleet.watch()
    await fleet.reconciler.open_gate()
    standby = asyncio.create_task(fleet.reconciler.stand_by())
    await asyncio.sleep(10 * H)
    assert api.requests["event"] == 0
    standby.cancel()
    fleet.leading = False
    await fleet.lead()
    await asyncio.sleep(2)
    assert api.requests["event"] == 0
    for task in fleet.tasks:
        task.cancel()
    await asyncio.gather(*fleet.tasks, standby, return_exceptions=True)


@simulated
async def test_what_was_away_before_we_led_is_not_said_to_be_back() -> None:
    api = small(2)
    fleet = Fleet(api)
    fleet.leases_listed()
    fleet.watch()
    await fleet.reconciler.open_gate()
    standby = asyncio.create_task(fleet.reconciler.stand_by())
    await asyncio.sleep(60)
    assert fleet.reconciler.ingest.watch_is_stale
    standby.cancel()
    await fleet.lead()
    await fleet.beating(30)
    assert not fleet.reconciler.ingest.watch_is_stale
    assert reasons(api, "hotpool-operator") == ["Leading"]
    await fleet.stop()


# Pools (D10, D11).


@simulated
async def test_a_slice_edited_or_deleted_by_hand_is_told_and_our_own_changes_are_not() -> None:
    api = small(4)
    async with operator(api) as fleet:
        await fleet.beating(15)
        publish(api, "n3", no_llm(2))
        await fleet.beating(15)
        assert "SliceRepaired" not in reasons(api, "llm")
        told = len(api.told("llm"))
        api.edit(Kind.SLICE, "llm-0", {"members": []})
        await fleet.beating(15)
        assert api.told("llm")[told:] == [("SliceRepaired", "1 slice [llm-0] changed by another client: repaired")]
        api.delete(Kind.SLICE, "llm-0")
        await fleet.beating(15)
        assert reasons(api, "llm")[told:] == ["SliceRepaired", "SliceRepaired"]
        assert set(api.members("llm")) == {"n0", "n1", "n2"}


@simulated
async def test_a_write_of_ours_that_had_no_answer_is_not_taken_for_anothers() -> None:
    api = small(4)
    async with operator(api) as fleet:
        await fleet.beating(15)
        patch = api.patch
        lost = 0

        async def lossy(*where: Any, **more: Any) -> Any:
            nonlocal lost
            await patch(*where, **more)
            lost += 1
            raise TimeoutError

        api.patch = lossy  # type: ignore[method-assign]
        publish(api, "n0", no_llm(2))
        await fleet.beating(5)
        api.patch = patch  # type: ignore[method-assign]
        await fleet.beating(20)
        publish(api, "n1", no_llm(2))
        await fleet.beating(20)
        assert lost > 0
        assert "SliceRepaired" not in reasons(api, "llm")
        left = [note for reason, note in api.told("llm") if reason == "MembersChanged"][1:]
        assert left == ["1 left (TypeNotReady 1) [n0]", "1 left (TypeNotReady 1) [n1]"]


@simulated
async def test_an_edit_that_only_the_conflict_of_our_own_write_reveals_is_told() -> None:
    api = small(4)
    async with operator(api) as fleet:
        await fleet.beating(15)
        api.feed = None
        api.edit(Kind.SLICE, "llm-0", {"members": []})
        body = {**api.objects[Kind.NODE]["n0"], "status": {"report": no_llm(2), "conditions": []}}
        body["metadata"] = {**body["metadata"], "resourceVersion": "100000"}
        fleet.reconciler.ingest.on_object(Kind.NODE, "MODIFIED", body)
        await fleet.beating(3)
        assert set(api.members("llm")) == {"n1", "n2", "n3"}
        assert "SliceRepaired" in reasons(api, "llm")


@simulated
async def test_a_round_that_failed_half_way_is_told_whole() -> None:
    api = small(6, sliceSize=2)
    async with operator(api) as fleet:
        await fleet.beating(15)
        api.fault = refusing(503, kind=Kind.SLICE, name="llm-1")
        for name in ("n0", "n2", "n4"):
            publish(api, name, no_llm(2))
        await fleet.beating(15)
        api.fault = None
        await fleet.beating(45)
        notes = [note for reason, note in api.told("llm") if reason == "MembersChanged"][1:]
        assert notes == ["3 left (TypeNotReady 3) [n0, n2, n4]"]


@simulated
async def test_dry_run_and_pause_are_named() -> None:
    api = small(2)
    async with operator(api) as fleet:
        await fleet.beating(15)
        told = len(api.told("llm"))
        api.edit(Kind.POOL, "llm", {"spec": {"mode": "DryRun"}})
        await fleet.beating(15)
        assert ("DryRunEmptied", "mode DryRun: all 2 members were removed") in api.told("llm")[told:]
        assert "MembersChanged" not in reasons(api, "llm")[told:]
        api.edit(Kind.POOL, "llm", {"spec": {"mode": "Active"}})
        await fleet.beating(15)
        api.edit(Kind.POOL, "llm", {"metadata": {"annotations": {"hotpool.dev/paused": "true"}}})
        await fleet.beating(15)
        assert reasons(api, "llm")[-1] == "Paused"
        api.edit(Kind.POOL, "llm", {"metadata": {"annotations": {"hotpool.dev/paused": None}}})
        await fleet.beating(15)
        assert reasons(api, "llm")[-1] == "Resumed"


@simulated
async def test_a_pool_recreated_under_its_name_was_changed_by_nobody() -> None:
    api = small(2)
    async with operator(api) as fleet:
        await fleet.beating(15)
        api.delete(Kind.POOL, "llm")
        api.put(pool_object("llm", requires=requires("llm")))
        await fleet.beating(15)
        assert set(api.members("llm")) == {"n0", "n1"}
        assert "SliceRepaired" not in reasons(api, "llm")


# Generators (D5).


@simulated
async def test_a_generated_pool_that_comes_back_is_told_and_a_change_of_the_template_is_not() -> None:
    api, name = FakeApi(), pool_name("g", "zh-en")
    api.put(generator_object("g"))
    api.put(node_object("s", speech("zh", "en")))
    async with operator(api) as fleet:
        await fleet.beating(15)
        told = len(api.told("g"))
        api.edit(Kind.GENERATOR, "g", {"spec": {"template": {"spec": {"minMembers": 2}}}})
        await fleet.beating(15)
        assert api.objects[Kind.POOL][name]["spec"]["minMembers"] == 2
        assert api.told("g")[told:] == []
        api.edit(Kind.POOL, name, {"spec": {"minMembers": 7}})
        await fleet.beating(15)
        api.delete(Kind.POOL, name)
        await fleet.beating(15)
        assert api.told("g")[told:] == [
            ("PoolRepaired", f"1 generated pool [{name}] edited by another client: repaired"),
            ("PoolRecreated", f"1 generated pool [{name}] deleted by another client: repaired"),
        ]
        assert api.objects[Kind.POOL][name]["spec"]["minMembers"] == 2


@simulated
async def test_pools_that_come_and_go_by_rule_are_nobodys_edit_and_what_is_not_admitted_is_told() -> None:
    api = FakeApi()
    api.put(generator_object("g", maxPools=2, graceSeconds=1))
    api.put(node_object("s", speech("zh", "en")))
    async with operator(api) as fleet:
        await fleet.beating(15)
        publish(api, "s", speech("zh", "en", "ja", sequence=2))
        await fleet.beating(15)
        assert reasons(api, "g").count("NotAdmitted") == 1
        publish(api, "s", report(sequence=3))
        await fleet.beating(15)
        assert api.objects[Kind.POOL] == {}
        publish(api, "s", speech("zh", "en", sequence=4))
        await fleet.beating(15)
        assert len(api.objects[Kind.POOL]) == 2
        assert set(reasons(api, "g")) <= {"Ready", "NotAdmitted", "NotAdmittedResolved"}


# The fleet (E5).


@simulated
async def test_redis_that_goes_and_comes_is_told_once_each_time() -> None:
    api, redis = small(5), FakeRedis()
    async with operator(api, redis) as fleet:
        await fleet.beating(15)
        redis.fault = RetryableError("connection refused")
        for turn in range(5):
            publish(api, f"n{turn}", no_llm(2))
            await fleet.beating(12)
        redis.fault = None
        await fleet.beating(15)
        down, up = api.told("hotpool-operator")[1:]
        assert down[0] == "RedisDown"
        assert down[1].endswith("is unaffected: connection refused")
        assert up[0] == "RedisUp"
        assert "after 6" in up[1]


@simulated
async def test_redis_that_is_away_from_the_start_is_told() -> None:
    api, redis = small(2), FakeRedis(fault=RetryableError("away"))
    async with operator(api, redis) as fleet:
        await fleet.beating(15)
        assert reasons(api, "hotpool-operator") == ["Leading", "RedisDown"]


@simulated
async def test_our_own_deafness_is_told_and_how_long_it_was() -> None:
    api = small(2)
    async with operator(api) as fleet:
        await fleet.beating(15)
        assert reasons(api, "hotpool-operator") == ["Leading"]
        fleet.held = True
        await fleet.beating(60)
        fleet.held = False
        await fleet.beating(15)
        (_, deaf), (_, hearing) = api.told("hotpool-operator")[1:]
        assert reasons(api, "hotpool-operator")[1:] == ["LeaseWatchLost", "LeaseWatchRestored"]
        assert "silence is not counted" in deaf
        assert hearing.startswith("heartbeats are received again, after ")


# The wire.


@simulated
async def test_an_event_is_as_the_api_server_wants_it() -> None:
    api = small(1)
    async with operator(api):
        await until(lambda: bool(api.told("llm")))
        event = next(event for _, event in api.events if event["reason"] == "MembersChanged")
        assert (event["apiVersion"], event["kind"], event["type"]) == ("events.k8s.io/v1", "Event", "Normal")
        assert event["reportingController"] == "hotpool.dev/operator"
        assert event["reportingInstance"] == "operator-1"
        assert event["action"]
        assert event["metadata"]["name"].startswith("llm.")
        assert event["regarding"] == {
            "apiVersion": "hotpool.dev/v1alpha1",
            "kind": "NodePool",
            "name": "llm",
            "namespace": "fleet",
            "uid": "uid-llm",
        }
        assert "series" not in event
