"""Silence in simulated time: probe Lease, brake, expiry, restarts and failovers (requirements C3, C4, D8, D9).

Requirements C2, D7.
"""

import asyncio
from collections import Counter
from typing import Any

import pytest
from tests.support.builders import H, condition, node_object, pool_object, report, requires, service, stopped
from tests.support.llm_fleet import no_llm, publish
from tests.support.simulated_fleet import FakeApi, FakeRedis, Fleet, now, operator, simulated, until

from hotpool.core.model import Kind
from hotpool.core.watch_health import PROBE_SECONDS, PROBE_TIMEOUT_SECONDS
from hotpool.errors import RetryableError

pytestmark = pytest.mark.timeout(60)

LIVE = [condition(), condition("Draining", "False", "NotRequested")]


def fleet_of(count: int, **spec: Any) -> FakeApi:
    """Return an API server with a pool `llm` and its members n0, n1, ...; each but n0 has a label of a person."""
    api = FakeApi()
    api.put(pool_object("llm", requires=requires("llm"), **spec))
    for number in range(count):
        labels = {"site": "berlin"} if number else {}
        api.put(node_object(f"n{number}", report(service("q", "llm")), conditions=LIVE, labels=labels))
    return api


def names(count: int, first: int = 0) -> list[str]:
    return [f"n{number}" for number in range(first, first + count)]


def count_of(api: FakeApi, state: str) -> int:
    return list(api.members("llm").values()).count(state)


def has_mass_silence(api: FakeApi) -> bool:
    return "MassSilence" in api.conditions(Kind.POOL, "llm")


# The brake (D8).


@pytest.mark.parametrize(
    ("nodes", "silent", "leave"),
    [
        (10, 3, 3),
        (10, 4, 0),
        (10, 6, 0),
        (10, 10, 0),
        (1, 1, 1),
        (2, 1, 1),
        (2, 2, 0),
        (3, 1, 1),
    ],
)
@simulated
async def test_at_most_30_percent_leave_for_silence_and_at_least_one_may(nodes: int, silent: int, leave: int) -> None:
    api = fleet_of(nodes)
    async with operator(api, redis := FakeRedis()) as fleet:
        await fleet.beating(5)
        await fleet.beating(6 * H, *(names(nodes - silent, silent) or ["absent"]))
        assert count_of(api, "Ready") == nodes - silent
        assert count_of(api, "Suspect") == silent - leave
        assert has_mass_silence(api) is not bool(leave)
        retained = {node for node, state in api.members("llm").items() if state == "Suspect"}
        assert redis.pools["llm"].suspect == retained
        status = api.objects[Kind.POOL]["llm"]["status"]
        assert status["suspectMembers"] == len(retained)
        assert {item["reason"]: item["count"] for item in status["excluded"]} == ({"Offline": leave} if leave else {})


@simulated
async def test_the_brake_uses_the_percentage_of_the_pool() -> None:
    api = fleet_of(10, brake={"maxSilentPercent": 60})
    async with operator(api) as fleet:
        await fleet.beating(6 * H, *names(4, 6))
        assert api.members("llm") == dict.fromkeys(names(4, 6), "Ready")
        assert not has_mass_silence(api)


@simulated
async def test_recovery_is_never_blocked_and_releases_the_brake() -> None:
    api = fleet_of(10)
    async with operator(api) as fleet:
        await fleet.beating(6 * H, *names(5, 5))
        assert count_of(api, "Suspect") == 5
        fleet.beat("n0")
        assert await until(lambda: api.members("llm")["n0"] == "Ready") < 1.1
        assert count_of(api, "Suspect") == 4
        fleet.beat("n1")
        await until(lambda: not has_mass_silence(api))
        assert api.members("llm") == dict.fromkeys(["n0", "n1", *names(5, 5)], "Ready")


@simulated
async def test_a_change_a_drain_and_a_deletion_always_take_effect() -> None:
    api = fleet_of(10)
    async with operator(api) as fleet:
        await fleet.beating(6 * H, *names(4, 6))
        assert count_of(api, "Suspect") == 6
        api.delete(Kind.NODE, "n0")
        api.edit(Kind.NODE, "n1", {"spec": {"drain": True}})
        api.edit(Kind.POOL, "llm", {"spec": {"excludeNodes": ["n2"]}})
        api.put({**api.objects[Kind.NODE]["n3"], "status": {"report": report(stopped("q", "llm"), sequence=2)}})
        await fleet.beating(3, *names(4, 6))
        assert api.members("llm") == {
            "n1": "Draining",
            **dict.fromkeys(["n4", "n5"], "Suspect"),
            **dict.fromkeys(names(4, 6), "Ready"),
        }


@simulated
async def test_excluded_silent_nodes_leave_and_do_not_count_as_silent() -> None:
    api = fleet_of(10)
    async with operator(api) as fleet:
        await fleet.beating(6 * H, *names(6, 4))
        assert count_of(api, "Suspect") == 4
        api.edit(Kind.NODE, "n0", {"metadata": {"labels": {"x": "y"}}})
        api.edit(Kind.POOL, "llm", {"spec": {"excludeNodes": ["n0", "n1"]}})
        await fleet.beating(3, *names(6, 4))
        assert api.members("llm") == dict.fromkeys(names(6, 4), "Ready")


@simulated
async def test_removed_silent_nodes_count_so_that_gradual_silence_does_not_empty_a_pool() -> None:
    api = fleet_of(10)
    async with operator(api) as fleet:
        await fleet.beating(6 * H, *names(8, 2))
        assert set(api.members("llm")) == set(names(8, 2))
        await fleet.beating(6 * H, *names(5, 5))
        assert count_of(api, "Suspect") == 3
        assert count_of(api, "Ready") == 5


@simulated
async def test_after_600_seconds_the_brake_retains_no_silent_node() -> None:
    api = fleet_of(10)
    async with operator(api) as fleet:
        await fleet.beating(3 * H + 550, *names(4, 6))
        assert count_of(api, "Suspect") == 6
        await fleet.beating(60, *names(4, 6))
        assert api.members("llm") == dict.fromkeys(names(4, 6), "Ready")
        assert not has_mass_silence(api)


@simulated
async def test_mass_silence_changes_neither_a_pool_in_dry_run_nor_a_paused_pool() -> None:
    api = fleet_of(4)
    api.put(pool_object("dry", requires=requires("llm"), mode="DryRun"))
    api.put(pool_object("still", requires=requires("llm")))
    async with operator(api) as fleet:
        await fleet.beating(3)
        api.edit(Kind.POOL, "still", {"metadata": {"annotations": {"hotpool.dev/paused": "true"}}})
        await fleet.beating(6 * H, "n0")
        assert api.members("dry") == {}
        assert api.members("still") == dict.fromkeys(names(4), "Ready")
        api.edit(Kind.POOL, "still", {"metadata": {"annotations": {"hotpool.dev/paused": None}}})
        await fleet.beating(3, "n0")
        assert api.members("still") == {"n0": "Ready", **dict.fromkeys(names(3, 1), "Suspect")}


# Restart and failover (C4, D9).


@simulated
async def test_a_restart_during_mass_silence_keeps_the_members_without_a_write() -> None:
    api = fleet_of(10)
    async with operator(api) as fleet:
        await fleet.beating(6 * H, *names(4, 6))
    before, writes = api.members("llm"), len(api.writes)
    assert count_of(api, "Suspect") == 6
    async with operator(api) as fleet:
        await fleet.beating(2 * H, *names(4, 6))
        assert api.members("llm") == before
        assert api.writes[writes:] == []
        await fleet.beating(600 - 8 * H - 10, *names(4, 6))
        assert api.members("llm") == before
        await fleet.beating(4 * H, *names(4, 6))
        assert api.members("llm") == dict.fromkeys(names(4, 6), "Ready")


@simulated
async def test_a_member_without_a_condition_keeps_its_place_for_one_period_after_a_restart() -> None:
    api = fleet_of(2)
    async with operator(api) as fleet:
        await fleet.beating(5)
    api.put({**api.objects[Kind.NODE]["n0"], "status": {"report": report(service("q", "llm")), "conditions": []}})
    async with operator(api) as fleet:
        assert api.members("llm") == {"n0": "Ready", "n1": "Ready"}
        await fleet.beating(5 * H, "n1")
        assert api.members("llm") == {"n1": "Ready"}


@simulated
async def test_a_retained_node_has_a_period_for_its_heartbeat_after_a_long_stop_of_the_operator() -> None:
    api = fleet_of(10)
    async with operator(api) as fleet:
        await fleet.beating(6 * H, *names(4, 6))
    await asyncio.sleep(3600)
    async with operator(api) as fleet:
        await fleet.beating(3 * H)
        assert api.members("llm") == dict.fromkeys(names(10), "Ready")


@simulated
async def test_a_warm_standby_continues_where_the_leader_stopped() -> None:
    api = fleet_of(10)
    redis = FakeRedis()
    standby = Fleet(api, redis)
    standby.list_leases()
    await standby.manager.open_gate()
    watching = asyncio.create_task(standby.manager.stand_by())
    probing = asyncio.create_task(standby.renew_probe_lease())
    async with operator(api, redis) as leader:
        feeds = (leader.manager.on_object, standby.manager.on_object)

        def both(*event: Any) -> None:
            for feed in feeds:
                feed(*event)

        api.feed = both
        for _ in range(6):
            leader.beat(*names(9, 1))
            standby.beat(*names(9, 1))
            await asyncio.sleep(H)
        assert set(api.members("llm")) == set(names(9, 1))
        writes = len(api.writes)
    for task in (watching, probing):
        task.cancel()
    standby.watch()
    await standby.lead()
    await standby.beating(2 * H, *names(9, 1))
    assert set(api.members("llm")) == set(names(9, 1))
    assert api.writes[writes:] == []
    await standby.stop()


@pytest.mark.parametrize(("after", "expected"), [(3.5, "Suspect"), (4.5, None)])
@simulated
async def test_a_standby_that_started_late_does_not_revert_the_state_of_the_leader(
    after: float, expected: str | None
) -> None:
    api = fleet_of(10)
    async with operator(api) as leader:
        leader.beat()
        await leader.beating(2 * H - 1, *names(9, 1))
        standby = Fleet(api)
        standby.list_leases()
        await standby.manager.open_gate()
        tasks = [asyncio.create_task(standby.manager.stand_by()), asyncio.create_task(standby.renew_probe_lease())]
        lead = leader.manager.on_object

        def both(*event: Any) -> None:
            lead(*event)
            standby.manager.on_object(*event)

        api.feed = both
        for _ in range(int((after - 2) * H)):
            if now() % H < 1:
                leader.beat(*names(9, 1))
                standby.beat(*names(9, 1))
            await asyncio.sleep(1)
        assert api.members("llm").get("n0") == expected
    for task in tasks:
        task.cancel()
    standby.watch()
    await standby.lead()
    writes = len(api.writes)
    await asyncio.sleep(1)
    assert api.members("llm").get("n0") == expected
    assert api.writes[writes:] == []
    standby.beat()
    await until(lambda: api.members("llm").get("n0") == "Ready")
    await standby.stop()


# The probe Lease (C3).


@simulated
async def test_an_open_watch_without_events_is_stale() -> None:
    api = fleet_of(4)
    async with operator(api) as fleet:
        await fleet.beating(2 * H)
        fleet.watch_frozen = True
        await asyncio.sleep(16)
        assert fleet.manager.ingest.watch_is_stale
        await asyncio.sleep(900)
        assert api.members("llm") == dict.fromkeys(names(4), "Ready")
        fleet.watch_frozen = False
        await asyncio.sleep(6)
        assert not fleet.manager.ingest.watch_is_stale
        await asyncio.sleep(3 * H - 8)
        assert api.members("llm") == dict.fromkeys(names(4), "Ready")
        await fleet.beating(5 * H, "n1", "n2", "n3")
        assert api.members("llm") == dict.fromkeys(names(3, 1), "Ready")


@simulated
async def test_silence_counts_for_at_most_one_interval_after_the_last_probe_however_short_it_is() -> None:
    interval = 1
    api = FakeApi()
    api.put(pool_object("llm", requires=requires("llm")))
    api.put(node_object("n0", report(service("q", "llm"), intervalSeconds=interval), conditions=LIVE))
    async with operator(api) as fleet:
        fleet.manager.on_heartbeats([])
        fleet.watch_frozen = True
        await asyncio.sleep(9)
        assert not fleet.manager.ingest.watch_is_stale
        assert api.members("llm") == {"n0": "Ready"}
        fleet.watch_frozen = False
        await until(lambda: api.members("llm") == {})


@simulated
async def test_a_renewal_after_too_long_a_gap_gives_a_fresh_period_although_nothing_looked_at_the_time() -> None:
    api = fleet_of(4)
    standby = Fleet(api)
    standby.list_leases()
    await standby.manager.open_gate()
    standby.manager.on_probe_received("of the former leader")
    standby.beat()
    await asyncio.sleep(PROBE_SECONDS + PROBE_TIMEOUT_SECONDS + 1)
    standby.watch()
    await standby.lead()
    await asyncio.sleep(3 * H - 1)
    assert api.members("llm") == dict.fromkeys(names(4), "Ready")
    await until(lambda: api.members("llm") == dict.fromkeys(names(4), "Suspect"))
    await standby.stop()


# 600 seconds (C4).


@simulated
async def test_after_600_seconds_the_lease_and_a_record_without_changes_of_people_are_deleted() -> None:
    api = fleet_of(2)
    redis = FakeRedis()
    async with operator(api, redis) as fleet:
        fleet.beat()
        began = now()
        await fleet.beating(3 * H + 598, "absent")
        assert set(api.leases) >= {"hotpool-node-n0", "hotpool-node-n1"}
        await until(lambda: "n0" not in api.objects[Kind.NODE])
        assert 3 * H + 600 <= now() - began < 3 * H + 603
        await asyncio.sleep(2)
        assert not {"hotpool-node-n0", "hotpool-node-n1"} & set(api.leases)
        assert "n1" in api.objects[Kind.NODE]
        assert api.members("llm") == {}
        assert redis.nodes == {}
        deletions = [write for write in api.writes if write.verb.startswith("delete")]
        await asyncio.sleep(700)
        assert [write for write in api.writes if write.verb.startswith("delete")] == deletions


@pytest.mark.parametrize(
    "patch",
    [
        {"spec": {"drain": True}},
        {"spec": {"services": [{"id": "q", "desired": "Running"}]}},
        {"metadata": {"labels": {"rack": "7"}}},
        {"metadata": {"annotations": {"note": "ours"}}},
    ],
)
@simulated
async def test_a_record_changed_by_people_is_never_deleted(patch: dict[str, Any]) -> None:
    api = fleet_of(1)
    async with operator(api) as fleet:
        fleet.beat()
        api.edit(Kind.NODE, "n0", patch)
        await asyncio.sleep(3 * H + 700)
        assert "n0" in api.objects[Kind.NODE]
        assert api.conditions(Kind.NODE, "n0")["Ready"] == ("Unknown", "Offline")


@simulated
async def test_labels_of_the_agent_do_not_count_as_changes_of_people() -> None:
    api = fleet_of(1)
    async with operator(api) as fleet:
        fleet.beat()
        api.edit(Kind.NODE, "n0", {"metadata": {"labels": {"agent.hotpool.dev/os": "linux"}}})
        await until(lambda: "n0" not in api.objects[Kind.NODE], 700)


@simulated
async def test_silence_counts_from_the_stored_transition_after_a_restart() -> None:
    api = fleet_of(1)
    async with operator(api) as fleet:
        fleet.beat()
        began = now()
        await asyncio.sleep(5 * H)
    async with operator(api) as fleet:
        await asyncio.sleep(1)
        await until(lambda: "n0" not in api.objects[Kind.NODE], 700)
        assert 3 * H + 599 <= now() - began < 3 * H + 610


@simulated
async def test_nothing_is_deleted_of_an_agent_that_returns_after_590_seconds() -> None:
    api = fleet_of(1)
    async with operator(api) as fleet:
        fleet.beat()
        await asyncio.sleep(3 * H + 590)
        fleet.beat()
        await until(lambda: api.members("llm") == {"n0": "Ready"})
        await fleet.beating(60)
        assert "n0" in api.objects[Kind.NODE]
        assert "hotpool-node-n0" in api.leases


@simulated
async def test_a_lease_renewed_meanwhile_is_not_deleted() -> None:
    api = fleet_of(2)
    async with operator(api) as fleet:
        fleet.beat()
        api.leases["hotpool-node-n1"] = "renewed, not delivered yet"
        await asyncio.sleep(3 * H + 700)
        assert "hotpool-node-n1" in api.leases


@simulated
async def test_a_late_event_of_a_deleted_lease_is_no_heartbeat() -> None:
    api = fleet_of(1)
    async with operator(api) as fleet:
        fleet.beat()
        api.edit(Kind.NODE, "n0", {"metadata": {"labels": {"rack": "7"}}})
        last = fleet.cache.leases.get("n0")
        assert last
        await asyncio.sleep(3 * H + 610)
        assert "hotpool-node-n0" not in api.leases
        fleet.manager.on_heartbeats([last])
        await asyncio.sleep(5)
        assert api.conditions(Kind.NODE, "n0")["Ready"] == ("Unknown", "Offline")
        assert api.members("llm") == {}
        fleet.beat("n0")
        await until(lambda: api.members("llm") == {"n0": "Ready"})


@simulated
async def test_a_lease_without_a_record_is_deleted_when_it_is_not_renewed() -> None:
    api = fleet_of(3)
    async with operator(api) as fleet:
        fleet.beat()
        for name in ("n0", "n1"):
            api.delete(Kind.NODE, name)
        await fleet.beating(1500, "n1", "n2")
        assert set(api.leases) == {"hotpool-node-n1", "hotpool-node-n2"}
        assert api.members("llm") == {"n2": "Ready"}


@simulated
async def test_a_lease_without_a_record_whose_renewal_was_not_delivered_is_not_deleted() -> None:
    api = fleet_of(2)
    async with operator(api) as fleet:
        fleet.beat()
        api.delete(Kind.NODE, "n0")
        api.leases["hotpool-node-n0"] = "renewed, not delivered yet"
        await fleet.beating(1500, "n1")
        assert "hotpool-node-n0" in api.leases


# Merging (D7).


@simulated
async def test_a_slice_less_than_a_quarter_full_is_merged_once_a_minute_and_adds_before_it_removes() -> None:
    api = fleet_of(12, sliceSize=4)
    async with operator(api) as fleet:
        await fleet.beating(3)
        assert [len(nodes) for nodes in api.slices("llm").values()] == [4, 4, 4]
        seen: list[set[str]] = []
        feed = api.feed
        assert feed

        def record(*event: Any) -> None:
            if event[0] is Kind.SLICE:
                seen.append(set(api.members("llm")))
            feed(*event)

        api.feed = record
        deleted = ["n10", "n11", "n8", "n9", "n4", "n5", "n6"]
        for name in deleted:
            api.delete(Kind.NODE, name)
        await fleet.beating(10)
        rest = set(names(12)) - set(deleted)
        assert set(api.members("llm")) == rest
        await fleet.beating(120)
        assert set(api.members("llm")) == rest
        assert all(rest <= members for members in seen)


def times_listed(api: FakeApi) -> Counter[str]:
    """Return node → number of entries in the slices of the pool."""
    return Counter(node for nodes in api.slices("llm").values() for node in nodes)


@simulated
async def test_a_merge_whose_deletion_fails_is_repaired_and_lists_no_node_twice() -> None:
    api = fleet_of(11, sliceSize=5)
    async with operator(api) as fleet:
        await fleet.beating(3)
        assert [len(nodes) for nodes in api.slices("llm").values()] == [5, 5, 1]
        refusals: list[str] = []

        def refuse_once(verb: str, kind: Kind, name: str) -> BaseException | None:
            if (verb, kind) != ("delete", Kind.SLICE) or refusals:
                return None
            refusals.append(name)
            return RetryableError("no response")

        api.fault = refuse_once
        api.delete(Kind.NODE, "n0")
        await fleet.beating(70)
        assert refusals == ["llm-2"]
        assert set(times_listed(api).values()) == {1}
        assert len(api.slices("llm")) == 2


@simulated
async def test_slices_are_merged_also_while_the_pool_changes_all_the_time() -> None:
    api = fleet_of(11, sliceSize=5)
    async with operator(api) as fleet:
        await fleet.beating(3)
        api.delete(Kind.NODE, "n0")
        for second in range(180):
            # More often than slices are written.
            for part in range(10):
                sequence = second * 10 + part + 2
                content = report(service("q", "llm"), sequence=sequence) if part % 2 else no_llm(sequence)
                publish(api, "n1", content)
                await asyncio.sleep(0.1)
            fleet.beat()
        assert len(api.slices("llm")) == 2
