"""Events on transitions: aggregated, rate-limited, last in the queue (requirements C6, D5, D10, D11, E5).

On a real API server: tests/cluster/operator/test_events.py.

Requirements C4, D4.
"""

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from kubernetes.aio.client.exceptions import ApiException
from structlog.testing import capture_logs
from tests.support.builders import (
    H,
    generator_object,
    node_object,
    pool_object,
    report,
    requires,
    service,
    speech,
)
from tests.support.llm_fleet import llm, no_llm, publish, small_fleet
from tests.support.simulated_fleet import FakeApi, FakeRedis, Fleet, now, operator, refusing, simulated, until

from hotpool.core.generators.admission import pool_name
from hotpool.core.model import Kind
from hotpool.errors import RetryableError
from hotpool.events.aggregator import BURST, RATE

pytestmark = pytest.mark.timeout(60)

LEADING = ("Leading", "leads with term 7")
Fault = Callable[[], BaseException | None]


def reasons(api: FakeApi, name: str) -> list[str]:
    return [reason for reason, _ in api.event_notes(name)]


@simulated
async def test_a_pool_whose_members_join_gets_events_within_two_seconds() -> None:
    api = small_fleet(3)
    async with operator(api) as fleet:
        await fleet.beating(1)
        assert api.event_notes("llm") == [
            ("MembersChanged", "3 joined [n0, n1, n2]"),
            ("Ready", "EnoughMembers: 3 Ready members, 1 required"),
        ]
        at, event = api.events[0]
        assert at < 1002
        assert event["involvedObject"]["name"] == "hotpool-operator"
        assert api.event_notes("hotpool-operator") == [LEADING]


@simulated
async def test_heartbeats_unchanged_reports_and_a_restart_cause_no_event() -> None:
    api = small_fleet(3)
    api.put(generator_object("g"))
    api.put(node_object("s", speech("zh", "en")))
    api.put(pool_object("idle", requires=requires("tts", "odd")))
    async with operator(api) as fleet:
        await fleet.beating(60)
        before = len(api.events)
        await fleet.beating(700)
        publish(api, "n0", llm(2, time="later"))
        await fleet.beating(10)
        assert len(api.events) == before
    async with operator(api) as fleet:
        await fleet.beating(60)
    assert [event["reason"] for _, event in api.events[before:]] == ["Leading"]


@simulated
async def test_a_storm_of_500_changes_is_a_handful_of_events() -> None:
    api = small_fleet(500)
    async with operator(api) as fleet:
        await fleet.beating(30)
        before = len(api.events)
        for turn in range(500):
            publish(api, f"n{turn}", no_llm(2))
            await asyncio.sleep(0.01)
        fleet.beat()
        await fleet.beating(30)
        assert api.members("llm") == {}
        storm = [event for _, event in api.events[before:]]
        moves = [event for event in storm if event["reason"] == "MembersChanged"]
        assert Counter(event["reason"] for event in storm) == {"MembersChanged": 2, "NotReady": 1}
        assert moves[0]["message"] == "1 left (TypeNotReady 1) [n0]"
        assert moves[1]["message"] == "499 left (TypeNotReady 499) [n1, n10, n100, …]"
        assert moves[1]["series"]["count"] > 1
        assert moves[1]["eventTime"] < moves[1]["series"]["lastObservedTime"]


@simulated
async def test_events_of_nodes_silent_together_stay_within_the_rate_and_follow_that_of_their_pool() -> None:
    api = small_fleet(400)
    async with operator(api) as fleet:
        fleet.beat()
        await asyncio.sleep(2 * H)
        began, before = now(), len(api.events)
        await asyncio.sleep(3 * H)
        posted = api.events[before:]
        assert len(posted) <= BURST + RATE * (now() - began)
        assert len(posted) > 100
        assert reasons(api, "llm").count("MassSilence") == 1
        first = next(at for at, event in posted if event["reason"] == "MassSilence")
        offline = [at for at, event in posted if event["reason"] == "Offline"]
        assert all(at >= first for at in offline)


@simulated
async def test_each_transition_of_a_node_has_an_event() -> None:
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
async def test_the_clean_up_of_a_node_has_an_event() -> None:
    api = small_fleet(3)
    async with operator(api) as fleet:
        fleet.beat()
        api.edit(Kind.NODE, "n1", {"metadata": {"labels": {"site": "berlin"}}})
        await fleet.beating(720, "n2")
        assert set(api.objects[Kind.NODE]) == {"n1", "n2"}
        cleaned = {
            name: [note for reason, note in api.event_notes(name) if reason == "CleanedUp"] for name in ("n0", "n1")
        }
        assert cleaned["n0"][-1] == "silent for 600 s: its Lease and its NodeCapability were deleted"
        assert cleaned["n1"] == ["silent for 600 s: its Lease was deleted"]


@simulated
async def test_failures_flapping_and_refused_commands_are_events_of_their_node_and_log_lines() -> None:
    def failed(sequence: int) -> dict[str, Any]:
        broken = {**service("q", "llm"), "state": "Failed", "since": f"t{sequence}", "lastError": "killed by SIGKILL"}
        return report(broken, sequence=sequence)

    api = small_fleet(2)
    async with operator(api) as fleet:
        await fleet.beating(15)
        before = len(api.event_notes("n0"))
        with capture_logs() as logs:
            for sequence in range(2, 12):
                publish(api, "n0", failed(sequence))
                await asyncio.sleep(0.5)
            publish(api, "n0", {**llm(12), "capabilities": [{"type": "llm", "ready": False, "reason": "Flapping"}]})
            api.edit(Kind.NODE, "n1", {"spec": {"services": [{"id": "vllm", "desired": "Running"}]}})
            await fleet.beating(15)
        assert api.event_notes("n0")[before:] == [
            ("ServiceFailed", "1 failed [q: killed by SIGKILL]"),
            ("ServiceFlapping", "1 flapping [llm: failed too often: offered again when it has run for a while]"),
            ("ServiceFailed", "9 failed [q: killed by SIGKILL]"),
        ]
        refused = ("CommandRefused", "1 refused [vllm: Running: the node's catalogue has no such service]")
        assert refused in api.event_notes("n1")
        of_services = [line for line in logs if "service" in line]
        assert [line["event"] for line in of_services].count("service failed") == 10
        assert {line["event"] for line in of_services} == {"service failed", "service flapping", "command refused"}
        assert {key: of_services[0][key] for key in ("node", "service", "type", "reason", "message", "since")} == {
            "node": "n0",
            "service": "q",
            "type": "llm",
            "reason": "ServiceFailed",
            "message": "killed by SIGKILL",
            "since": "t2",
        }


# Failures to write Events.


def _failing(status: int) -> Fault:
    return lambda: ApiException(status=status, reason="injected")


FAULTS: dict[str, tuple[Fault, float]] = {
    "forbidden": (_failing(403), 0.0),
    "too many": (_failing(429), 0.0),
    "broken": (_failing(500), 0.0),
    "away": (TimeoutError, 2.0),
    "refused": (lambda: OSError("refused"), 0.0),
    "unexpected": (lambda: ValueError("injected"), 0.0),
    "slow": (lambda: None, 1.9),
}


async def _script(fault: Fault, delay: float) -> tuple[list[Any], list[Any], FakeApi]:
    """Run a fixed script that causes Events of all kinds; return the writes, the log of Redis and the API server."""
    api, redis = small_fleet(30), FakeRedis()
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
        return writes, [(round(at, 3), *command) for at, *command in redis.log], api


def _run(fault: Fault, delay: float) -> tuple[list[Any], list[Any], FakeApi]:
    results: list[Any] = []

    @simulated
    async def script() -> None:
        results.append(await _script(fault, delay))

    script()
    return results[0]  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def undisturbed() -> tuple[list[Any], list[Any], FakeApi]:
    """The result of the script without a fault."""
    return _run(lambda: None, 0.0)


@pytest.mark.parametrize("name", FAULTS)
def test_events_that_fail_or_hang_affect_nothing_else_and_are_not_retried(
    undisturbed: tuple[list[Any], list[Any], FakeApi], name: str
) -> None:
    writes, log, healthy = undisturbed
    faulty_writes, faulty_log, faulty = _run(*FAULTS[name])
    assert len(writes) > 30
    assert faulty_writes == writes
    assert faulty_log == log
    assert len(healthy.events) > 20
    assert faulty.requests["event"] <= healthy.requests["event"]
    if name != "slow":
        assert faulty.events == []


@simulated
async def test_an_operator_that_does_not_lead_posts_no_events() -> None:
    api = small_fleet(2)
    fleet = Fleet(api)
    fleet.list_leases()
    fleet.watch()
    await fleet.manager.open_gate()
    standby = asyncio.create_task(fleet.manager.stand_by())
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
async def test_an_outage_before_leadership_has_no_event_of_recovery() -> None:
    api = small_fleet(2)
    fleet = Fleet(api)
    fleet.list_leases()
    fleet.watch()
    await fleet.manager.open_gate()
    standby = asyncio.create_task(fleet.manager.stand_by())
    await asyncio.sleep(60)
    assert fleet.manager.ingest.watch_is_stale
    standby.cancel()
    await fleet.lead()
    await fleet.beating(30)
    assert not fleet.manager.ingest.watch_is_stale
    assert reasons(api, "hotpool-operator") == ["Leading"]
    await fleet.stop()


# Pools (D10, D11).


@simulated
async def test_a_slice_edited_or_deleted_by_hand_has_an_event_and_own_changes_have_none() -> None:
    api = small_fleet(4)
    async with operator(api) as fleet:
        await fleet.beating(15)
        publish(api, "n3", no_llm(2))
        await fleet.beating(15)
        assert "SliceRepaired" not in reasons(api, "llm")
        before = len(api.event_notes("llm"))
        api.edit(Kind.SLICE, "llm-0", {"members": []})
        await fleet.beating(15)
        assert api.event_notes("llm")[before:] == [
            ("SliceRepaired", "1 slice [llm-0] changed by another client: repaired")
        ]
        api.delete(Kind.SLICE, "llm-0")
        await fleet.beating(15)
        assert reasons(api, "llm")[before:] == ["SliceRepaired", "SliceRepaired"]
        assert set(api.members("llm")) == {"n0", "n1", "n2"}


@simulated
async def test_an_own_write_without_a_response_does_not_count_as_a_foreign_edit() -> None:
    api = small_fleet(4)
    async with operator(api) as fleet:
        await fleet.beating(15)
        patch = api.patch
        lost = 0

        async def lossy(*arguments: Any, **more: Any) -> Any:
            nonlocal lost
            await patch(*arguments, **more)
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
        left = [note for reason, note in api.event_notes("llm") if reason == "MembersChanged"][1:]
        assert left == ["1 left (TypeNotReady 1) [n0]", "1 left (TypeNotReady 1) [n1]"]


@simulated
async def test_a_foreign_edit_found_by_a_conflict_of_an_own_write_has_an_event() -> None:
    api = small_fleet(4)
    async with operator(api) as fleet:
        await fleet.beating(15)
        api.feed = None
        api.edit(Kind.SLICE, "llm-0", {"members": []})
        body = {**api.objects[Kind.NODE]["n0"], "status": {"report": no_llm(2), "conditions": []}}
        body["metadata"] = {**body["metadata"], "resourceVersion": "100000"}
        fleet.manager.on_object(Kind.NODE, "MODIFIED", body)
        await fleet.beating(3)
        assert set(api.members("llm")) == {"n1", "n2", "n3"}
        assert "SliceRepaired" in reasons(api, "llm")


@simulated
async def test_changes_of_a_round_that_failed_half_way_are_one_event() -> None:
    api = small_fleet(6, sliceSize=2)
    async with operator(api) as fleet:
        await fleet.beating(15)
        api.fault = refusing(503, kind=Kind.SLICE, name="llm-1")
        for name in ("n0", "n2", "n4"):
            publish(api, name, no_llm(2))
        await fleet.beating(15)
        api.fault = None
        await fleet.beating(45)
        notes = [note for reason, note in api.event_notes("llm") if reason == "MembersChanged"][1:]
        assert notes == ["3 left (TypeNotReady 3) [n0, n2, n4]"]


@simulated
async def test_dry_run_and_pause_have_events() -> None:
    api = small_fleet(2)
    async with operator(api) as fleet:
        await fleet.beating(15)
        before = len(api.event_notes("llm"))
        api.edit(Kind.POOL, "llm", {"spec": {"mode": "DryRun"}})
        await fleet.beating(15)
        assert ("DryRunEmptied", "mode DryRun: all 2 members were removed") in api.event_notes("llm")[before:]
        assert "MembersChanged" not in reasons(api, "llm")[before:]
        api.edit(Kind.POOL, "llm", {"spec": {"mode": "Active"}})
        await fleet.beating(15)
        api.edit(Kind.POOL, "llm", {"metadata": {"annotations": {"hotpool.dev/paused": "true"}}})
        await fleet.beating(15)
        assert reasons(api, "llm")[-1] == "Paused"
        api.edit(Kind.POOL, "llm", {"metadata": {"annotations": {"hotpool.dev/paused": None}}})
        await fleet.beating(15)
        assert reasons(api, "llm")[-1] == "Resumed"


@simulated
async def test_a_pool_recreated_under_its_name_does_not_count_as_edited() -> None:
    api = small_fleet(2)
    async with operator(api) as fleet:
        await fleet.beating(15)
        api.delete(Kind.POOL, "llm")
        api.put(pool_object("llm", requires=requires("llm")))
        await fleet.beating(15)
        assert set(api.members("llm")) == {"n0", "n1"}
        assert "SliceRepaired" not in reasons(api, "llm")


# Generators (D5).


@simulated
async def test_the_repair_of_a_generated_pool_has_an_event_and_a_change_of_the_template_has_none() -> None:
    api, name = FakeApi(), pool_name("g", "zh-en")
    api.put(generator_object("g"))
    api.put(node_object("s", speech("zh", "en")))
    async with operator(api) as fleet:
        await fleet.beating(15)
        before = len(api.event_notes("g"))
        api.edit(Kind.GENERATOR, "g", {"spec": {"template": {"spec": {"minMembers": 2}}}})
        await fleet.beating(15)
        assert api.objects[Kind.POOL][name]["spec"]["minMembers"] == 2
        assert api.event_notes("g")[before:] == []
        api.edit(Kind.POOL, name, {"spec": {"minMembers": 7}})
        await fleet.beating(15)
        api.delete(Kind.POOL, name)
        await fleet.beating(15)
        assert api.event_notes("g")[before:] == [
            ("PoolRepaired", f"1 generated pool [{name}] edited by another client: repaired"),
            ("PoolRecreated", f"1 generated pool [{name}] deleted by another client: repaired"),
        ]
        assert api.objects[Kind.POOL][name]["spec"]["minMembers"] == 2


@simulated
async def test_pools_created_and_removed_by_rule_do_not_count_as_edited_and_not_admitted_keys_have_an_event() -> None:
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
async def test_each_outage_of_redis_has_one_event_at_its_start_and_one_at_its_end() -> None:
    api, redis = small_fleet(5), FakeRedis()
    async with operator(api, redis) as fleet:
        await fleet.beating(15)
        redis.fault = RetryableError("connection refused")
        for turn in range(5):
            publish(api, f"n{turn}", no_llm(2))
            await fleet.beating(12)
        redis.fault = None
        await fleet.beating(15)
        down, up = api.event_notes("hotpool-operator")[1:]
        assert down[0] == "RedisDown"
        assert down[1].endswith("is unaffected: connection refused")
        assert up[0] == "RedisUp"
        assert "after 6" in up[1]


@simulated
async def test_redis_unreachable_from_the_start_has_an_event() -> None:
    api, redis = small_fleet(2), FakeRedis(fault=RetryableError("away"))
    async with operator(api, redis) as fleet:
        await fleet.beating(15)
        assert reasons(api, "hotpool-operator") == ["Leading", "RedisDown"]


@simulated
async def test_a_stale_lease_watch_has_events_with_its_duration() -> None:
    api = small_fleet(2)
    async with operator(api) as fleet:
        await fleet.beating(15)
        assert reasons(api, "hotpool-operator") == ["Leading"]
        fleet.watch_frozen = True
        await fleet.beating(60)
        fleet.watch_frozen = False
        await fleet.beating(15)
        (_, lost), (_, restored) = api.event_notes("hotpool-operator")[1:]
        assert reasons(api, "hotpool-operator")[1:] == ["LeaseWatchLost", "LeaseWatchRestored"]
        assert "silence is not counted" in lost
        assert restored.startswith("heartbeats are received again, after ")


# The object.


@simulated
async def test_an_event_has_all_required_fields() -> None:
    api = small_fleet(1)
    async with operator(api):
        await until(lambda: bool(api.event_notes("llm")))
        event = next(event for _, event in api.events if event["reason"] == "MembersChanged")
        assert (event["apiVersion"], event["kind"], event["type"]) == ("v1", "Event", "Normal")
        assert event["reportingComponent"] == "hotpool.dev/operator"
        assert event["reportingInstance"] == "operator-1"
        assert event["action"]
        assert event["metadata"]["name"].startswith("llm.")
        assert event["involvedObject"] == {
            "apiVersion": "hotpool.dev/v1alpha1",
            "kind": "NodePool",
            "name": "llm",
            "namespace": "fleet",
            "uid": "uid-llm",
        }
        assert "series" not in event
        assert event["firstTimestamp"] == event["lastTimestamp"] == event["eventTime"]
        assert event["count"] == 1
