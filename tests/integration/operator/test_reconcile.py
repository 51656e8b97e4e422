"""The manager over a fake API server in simulated time: events in, writes out.

Requirements C1, C3, C4, C6, C7, D3, D4, D5, D9, D10, D11, E3, E5, F1.
"""

import asyncio
import copy
import itertools
from collections.abc import Callable
from typing import Any

import pytest
from tests.support.builders import (
    H,
    condition,
    generator_object,
    node_object,
    pool_object,
    report,
    requires,
    service,
    slice_object,
    speech,
)
from tests.support.llm_fleet import llm, no_llm, publish, small_fleet
from tests.support.simulated_fleet import (
    FakeApi,
    FakeRedis,
    Fleet,
    now,
    operator,
    refusing,
    simulated,
    unreachable,
    until,
)

from hotpool.controllers.redis_target import RedisTarget
from hotpool.core.generators.admission import pool_name
from hotpool.core.model import CUSTOM_KINDS, Key, Kind
from hotpool.errors import NotLeaderError, RetryableError
from hotpool.observability.metrics import REGISTRY
from hotpool.projection.documents import PoolDocument

pytestmark = pytest.mark.timeout(60)

ASR = report(service("a", "asr"))


# The gate (D9, C7).


@simulated
async def test_nothing_is_written_before_everything_is_listed() -> None:
    api = small_fleet()
    api.fault = refusing(503, verb="list", kind=Kind.GENERATOR)
    fleet = Fleet(api)
    fleet.list_leases()
    fleet.watch()
    opening = asyncio.create_task(fleet.manager.open_gate())
    await asyncio.sleep(30)
    assert fleet.cache.pools["llm"].members
    assert not fleet.cache.gate_open
    assert api.writes == []
    api.fault = None
    await opening
    await fleet.lead()
    await asyncio.sleep(0.5)
    assert api.members("llm") == {"n0": "Ready", "n1": "Ready"}
    await fleet.stop()


@simulated
async def test_a_failed_read_removes_no_member() -> None:
    api = small_fleet()
    async with operator(api) as fleet:
        api.fault = unreachable
        await fleet.beating(650)
        assert len(fleet.cache.nodes) == 2
        api.fault = None
        await fleet.beating(10)
        assert api.members("llm") == {"n0": "Ready", "n1": "Ready"}
        assert [write.verb for write in api.written(Kind.SLICE)] == ["create"]


@simulated
async def test_a_resync_finds_missed_events() -> None:
    api = small_fleet(3)
    async with operator(api) as fleet:
        await fleet.beating(20)
        api.feed = None
        api.delete(Kind.NODE, "n0")
        publish(api, "n1", no_llm(2))
        api.put(node_object("n9", llm()))
        fleet.watch()
        await fleet.beating(305)
        assert set(api.members("llm")) == {"n2", "n9"}


@simulated
async def test_a_restored_older_store_is_accepted_after_a_get() -> None:
    api = small_fleet(3)
    async with operator(api) as fleet:
        await fleet.beating(20)
        old = copy.deepcopy(api.objects)
        publish(api, "n0", no_llm(2))
        api.edit(Kind.POOL, "llm", {"spec": {"excludeNodes": ["n1"]}})
        api.delete(Kind.NODE, "n2")
        await fleet.beating(5)
        assert api.members("llm") == {}
        api.objects = old
        await fleet.beating(305)
        assert api.members("llm") == {"n0": "Ready", "n1": "Ready", "n2": "Ready"}
        assert fleet.cache.identities(Kind.POOL)["llm"].version == int(
            api.objects[Kind.POOL]["llm"]["metadata"]["resourceVersion"]
        )


@simulated
async def test_a_late_list_reverts_no_newer_event() -> None:
    api = small_fleet(2)
    async with operator(api) as fleet:
        await fleet.beating(20)
        listing, old = api.page, copy.deepcopy(api.objects)

        async def late(kind: Kind, more: object) -> Any:
            return {**await listing(kind, more), "items": list(old[kind].values())}

        api.page = late  # type: ignore[method-assign]
        publish(api, "n0", no_llm(2))
        await asyncio.sleep(1)
        await fleet.manager.compare()
        assert api.members("llm") == {"n1": "Ready"}


@simulated
async def test_absence_from_a_list_is_no_evidence_until_a_get_confirms_it() -> None:
    api = small_fleet(2)
    async with operator(api) as fleet:
        hidden = api.objects[Kind.NODE]["n0"]
        listing = api.page

        async def lossy(kind: Kind, more: object) -> Any:
            page = await listing(kind, more)
            page["items"] = [item for item in page["items"] if item["metadata"]["name"] != "n0"]
            return page

        api.page = lossy  # type: ignore[method-assign]
        await fleet.manager.compare()
        assert hidden["metadata"]["name"] in fleet.cache.nodes
        api.fault = refusing(503, verb="get")
        await fleet.manager.compare()
        assert "n0" in fleet.cache.nodes


@simulated
async def test_a_list_that_fails_between_two_pages_is_no_evidence_of_absence_and_its_pages_count() -> None:
    api = small_fleet(4)
    async with operator(api) as fleet:
        await fleet.beating(20)
        api.feed = None
        publish(api, "n0", no_llm(2))
        page = await api.page(Kind.NODE, None)
        first = {"items": page["items"][:2], "metadata": page["metadata"] | {"continue": "more"}}

        async def broken(_kind: Kind, more: object) -> Any:
            if more:
                raise TimeoutError
            return first

        api.page = broken  # type: ignore[method-assign]
        before = api.requests["get"]
        assert not await fleet.manager.compare()
        await fleet.beating(5)
        assert api.requests["get"] == before
        assert set(fleet.cache.nodes) == {"n0", "n1", "n2", "n3"}
        assert set(api.members("llm")) == {"n1", "n2", "n3"}


# Pace (D3).


@simulated
async def test_the_first_change_is_written_at_once_and_then_one_round_a_second() -> None:
    api = small_fleet(30)
    async with operator(api) as fleet:
        await fleet.beating(5)
        began, before = now(), len(api.writes)
        for turn in range(40):
            name = f"n{turn % 30}"
            publish(api, name, no_llm(turn + 2) if turn < 30 else llm(turn + 2))
            await asyncio.sleep(0.1)
        await asyncio.sleep(1.5)
        rounds = [write.at for write in api.writes[before:] if write.kind is Kind.SLICE]
        assert rounds[0] - began < 0.05
        assert all(later - earlier >= 0.99 for earlier, later in itertools.pairwise(rounds))
        assert 4 <= len(rounds) <= 6
        assert set(api.members("llm")) == {f"n{number}" for number in range(10)}
        statuses = [write.at for write in api.writes[before:] if write.kind is Kind.POOL]
        assert all(later - earlier >= 0.99 for earlier, later in itertools.pairwise(statuses))


@simulated
async def test_one_pools_pace_does_not_delay_another() -> None:
    api = small_fleet(2)
    api.put(pool_object("asr", requires=requires("asr")))
    async with operator(api) as fleet:
        await fleet.beating(5)
        publish(api, "n0", no_llm(2))
        assert await until(lambda: set(api.members("llm")) == {"n1"}) < 0.05
        publish(api, "n0", report(service("a", "asr"), sequence=3))
        assert await until(lambda: set(api.members("asr")) == {"n0"}) < 0.05


@simulated
async def test_counts_by_reason_are_written_with_a_delay() -> None:
    api = small_fleet(1)
    async with operator(api) as fleet:
        await fleet.beating(15)
        before = len(api.written(Kind.POOL))
        for turn in range(10):
            api.put(node_object(f"x{turn}", ASR))
            await asyncio.sleep(1)
        assert len(api.written(Kind.POOL)) - before <= 2
        await fleet.beating(11)
        status = api.objects[Kind.POOL]["llm"]["status"]
        assert status["excluded"] == [{"reason": "TypeNotReady", "count": 10}]
        assert api.members("llm") == {"n0": "Ready"}


@simulated
async def test_nodes_that_join_no_pool_do_not_cause_a_plan_of_every_pool() -> None:
    api = small_fleet(1)
    for number in range(50):
        api.put(pool_object(f"p{number}", requires=requires("llm", "of-the-future")))
    async with operator(api) as fleet:
        await fleet.beating(15)
        before = REGISTRY.get_sample_value("hotpool_apply_seconds_count", {"kind": "nodepools"}) or 0.0
        for turn in range(50):
            api.put(node_object(f"x{turn}", ASR))
            await asyncio.sleep(0.2)
        await fleet.beating(11)
        planned = (REGISTRY.get_sample_value("hotpool_apply_seconds_count", {"kind": "nodepools"}) or 0.0) - before
        assert planned <= 51 * 4
        assert api.objects[Kind.POOL]["p7"]["status"]["excluded"] == [{"reason": "TypeNotReady", "count": 51}]


@simulated
async def test_heartbeats_and_unchanged_reports_write_nothing() -> None:
    api = small_fleet(5)
    redis = FakeRedis()
    async with operator(api, redis) as fleet:
        await fleet.beating(30)
        writes, sent = len(api.writes), len(redis.log)
        await fleet.beating(400)
        for number in range(5):
            publish(api, f"n{number}", llm(2, time="later"))
        await fleet.beating(10)
        assert api.writes[writes:] == []
        assert {verb for _, verb, _ in redis.log[sent:]} == {"stamp"}


# Restart (C4, D9).


@simulated
async def test_an_unchanged_restart_writes_nothing() -> None:
    api = small_fleet(3)
    api.put(pool_object("everyone", requires={"matchAll": True}, sliceSize=2))
    api.put(pool_object("idle"))
    api.put(pool_object("paused", paused=True, requires=requires("llm")))
    api.put(generator_object("g", rule={"languagePairs": {"manyToOne": True}}))
    api.put(node_object("s", speech("zh", "en")))
    async with operator(api) as fleet:
        await fleet.beating(60)
    before, stored = len(api.writes), [dict(objects) for objects in api.objects.values()]
    assert before
    async with operator(api) as fleet:
        await fleet.beating(60)
    assert api.writes[before:] == []
    assert [dict(objects) for objects in api.objects.values()] == stored


@simulated
async def test_a_restart_removes_no_live_node_and_restores_no_offline_one() -> None:
    api = small_fleet(3)
    async with operator(api) as fleet:
        await fleet.beating(5 * H, "n0", "n1")
        assert set(api.members("llm")) == {"n0", "n1"}
    assert api.conditions(Kind.NODE, "n2")["Ready"] == ("Unknown", "Offline")
    async with operator(api) as fleet:
        await asyncio.sleep(3 * H - 1)
        assert api.members("llm") == {"n0": "Ready", "n1": "Ready"}
        fleet.beat("n0")
        await asyncio.sleep(H)
        assert api.members("llm") == {"n0": "Ready", "n1": "Suspect"}
        fleet.beat("n2")
        await asyncio.sleep(1.1)
        assert api.members("llm")["n2"] == "Ready"


# Silence (C3).


@simulated
async def test_a_silent_node_becomes_suspect_then_offline_and_returns_with_its_next_heartbeat() -> None:
    api = small_fleet(2)
    async with operator(api) as fleet:
        fleet.beat("n0", "n1")
        began = now()
        await fleet.beating(3 * H - 0.5, "n1")
        assert api.members("llm")["n0"] == "Ready"
        fleet.beat("n1")
        await until(lambda: api.members("llm")["n0"] == "Suspect")
        assert 3 * H <= now() - began < 3 * H + 0.1
        await until(lambda: "n0" not in api.members("llm"))
        assert 4 * H <= now() - began < 4 * H + 0.1
        fleet.beat("n0")
        assert await until(lambda: api.members("llm").get("n0") == "Ready") < 1.1
        assert api.members("llm")["n1"] == "Ready"


@simulated
async def test_a_stale_lease_watch_does_not_count_as_silence() -> None:
    api = small_fleet(2)
    async with operator(api) as fleet:
        fleet.beat()
        await asyncio.sleep(2 * H)
        fleet.manager.on_watch_lost()
        assert fleet.manager.ingest.watch_is_stale
        await asyncio.sleep(100 * H)
        assert set(api.members("llm").values()) == {"Ready"}
        fleet.manager.on_watch_restored()
        await asyncio.sleep(3 * H - 1)
        assert set(api.members("llm").values()) == {"Ready"}
        await asyncio.sleep(1.1)
        assert set(api.members("llm").values()) == {"Suspect"}


# Membership follows every input (D2, D3, C5).


@simulated
async def test_a_change_of_any_input_changes_membership_at_once() -> None:
    api = small_fleet(1)
    api.put(pool_object("berlin", requires=requires("llm", nodeSelector={"matchLabels": {"site": "berlin"}})))
    async with operator(api) as fleet:
        await fleet.beating(5)
        api.edit(Kind.NODE, "n0", {"metadata": {"labels": {"site": "berlin"}}})
        assert await until(lambda: api.members("berlin") == {"n0": "Ready"}) < 0.05
        await fleet.beating(2)
        api.edit(Kind.NODE, "n0", {"spec": {"drain": True}})
        assert await until(lambda: api.members("berlin") == {"n0": "Draining"}) < 0.05
        assert api.members("llm") == {"n0": "Draining"}
        await fleet.beating(2)
        api.edit(Kind.POOL, "berlin", {"spec": {"excludeNodes": ["n0"]}})
        assert await until(lambda: api.members("berlin") == {}) < 0.05
        publish(api, "n0", llm(2, leaving=True))
        assert await until(lambda: api.members("llm") == {}) < 0.05


# Edits by hand (D10, D11).


@pytest.mark.parametrize(
    "edit",
    [
        {"members": []},
        {"members": [{"node": "stranger", "state": "Ready", "since": "t"}]},
        {"metadata": {"labels": {"hotpool.dev/pool": None}}},
        {"metadata": {"labels": {"hotpool.dev/pool": "other"}}},
        {"metadata": {"ownerReferences": None}},
        {"metadata": {"ownerReferences": None, "labels": None}},
        {"metadata": {"ownerReferences": None, "labels": {"hotpool.dev/pool": "asr"}}},
    ],
)
@simulated
async def test_a_slice_edited_by_hand_is_repaired(edit: dict[str, Any]) -> None:
    api = small_fleet(2)
    api.put(pool_object("asr", requires=requires("asr")))
    async with operator(api) as fleet:
        await fleet.beating(5)
        good = dict(api.objects[Kind.SLICE]["llm-0"])
        api.edit(Kind.SLICE, "llm-0", edit)
        await fleet.beating(3)
        repaired = api.objects[Kind.SLICE]["llm-0"]
        assert [item["node"] for item in repaired["members"]] == ["n0", "n1"]
        for field in ("labels", "ownerReferences"):
            assert repaired["metadata"][field] == good["metadata"][field]
        before = len(api.writes)
        await fleet.beating(5)
        assert api.writes[before:] == []


@simulated
async def test_a_slice_deleted_by_hand_is_created_again() -> None:
    api = small_fleet(2)
    async with operator(api) as fleet:
        await fleet.beating(5)
        api.delete(Kind.SLICE, "llm-0")
        assert await until(lambda: set(api.members("llm")) == {"n0", "n1"}) < 0.05


@simulated
async def test_a_pool_recreated_under_its_name_gets_its_members_again() -> None:
    api = small_fleet(2)
    async with operator(api) as fleet:
        await fleet.beating(5)
        api.delete(Kind.POOL, "llm")
        api.put(pool_object("llm", requires=requires("llm")))
        await fleet.beating(3)
        assert set(api.members("llm")) == {"n0", "n1"}
        owner = api.objects[Kind.SLICE]["llm-0"]["metadata"]["ownerReferences"][0]
        assert owner["uid"] == api.objects[Kind.POOL]["llm"]["metadata"]["uid"]


@simulated
async def test_the_rest_of_the_plan_of_a_deleted_pool_is_not_written_into_the_new_pool_of_that_name() -> None:
    api = small_fleet(4)
    async with operator(api) as fleet:
        await fleet.beating(5)
        api.delay = 0.1
        api.put(pool_object("recreated", requires=requires("llm"), sliceSize=1))
        await asyncio.sleep(0.15)
        assert len(api.slices("recreated")) == 1
        api.delete(Kind.POOL, "recreated")
        api.put(pool_object("recreated", requires=requires("llm"), sliceSize=2))
        uid, owners = api.objects[Kind.POOL]["recreated"]["metadata"]["uid"], list[str]()
        api.feed = watching_owners(fleet, owners)
        await fleet.beating(3)
        assert set(owners[1:]) == {uid}, "only the write that was under way is of the former pool"
        assert {name: len(nodes) for name, nodes in api.slices("recreated").items()} == {
            "recreated-0": 2,
            "recreated-1": 2,
        }


@simulated
async def test_the_rest_of_the_plan_of_a_deleted_generator_is_not_written() -> None:
    api = FakeApi()
    for number in range(20):
        api.put(node_object(f"n{number}", llm()))
    async with operator(api) as fleet:
        await fleet.beating(5)
        api.delay = 0.1
        api.put(generator_object("h", rule={"hash": {"count": 50}}, template={"spec": {"requires": requires("llm")}}))
        await until(lambda: len(api.objects[Kind.POOL]) == 2)
        api.delete(Kind.GENERATOR, "h")
        await fleet.beating(10)
        assert sum(write.verb == "create" for write in api.written(Kind.POOL)) <= 3


def watching_owners(fleet: Fleet, owners: list[str]) -> Callable[[Kind, str | None, dict[str, Any]], None]:
    """Return a watch that also notes the owner of each slice that is created or changed."""

    def deliver(kind: Kind, event: str | None, body: dict[str, Any]) -> None:
        if kind is Kind.SLICE and event != "DELETED":
            owners.append(body["metadata"]["ownerReferences"][0]["uid"])
        fleet.manager.on_object(kind, event, body)

    return deliver


@pytest.mark.parametrize("labels", [{"hotpool.dev/pool": "llm"}, None], ids=["labelled", "bare"])
@simulated
async def test_a_slice_without_owner_is_deleted_with_its_pool(labels: Any) -> None:
    api = small_fleet(2)
    async with operator(api) as fleet:
        await fleet.beating(5)
        api.edit(Kind.SLICE, "llm-0", {"metadata": {"ownerReferences": None, "labels": labels}})
        api.delete(Kind.POOL, "llm")
        await fleet.beating(3)
        assert api.objects[Kind.SLICE] == {}


@simulated
async def test_a_slice_without_owner_stays_until_the_deletion_of_its_pool_is_confirmed() -> None:
    api = small_fleet(1)
    api.put(slice_object("missed", 0, "n0") | {"metadata": {"name": "missed-0"}})
    api.fault = refusing(503, verb="get", kind=Kind.POOL)
    async with operator(api) as fleet:
        await fleet.beating(5)
        assert "missed-0" in api.objects[Kind.SLICE]
        api.feed, api.fault = None, None
        api.put(pool_object("missed", requires=requires("llm")))
        fleet.watch()
        await fleet.beating(20)
        assert [write.verb for write in api.written(Kind.SLICE, "missed-0")] == ["patch"]
        assert set(api.members("missed")) == {"n0"}


@simulated
async def test_a_paused_pool_does_not_change_until_the_pause_ends() -> None:
    api = small_fleet(2)
    async with operator(api) as fleet:
        await fleet.beating(5)
        api.edit(Kind.POOL, "llm", {"metadata": {"annotations": {"hotpool.dev/paused": "true"}}})
        await fleet.beating(2)
        assert api.conditions(Kind.POOL, "llm")["Paused"] == ("True", "Paused")
        api.delete(Kind.NODE, "n0")
        await fleet.beating(5)
        assert set(api.members("llm")) == {"n0", "n1"}
        api.edit(Kind.POOL, "llm", {"metadata": {"annotations": {"hotpool.dev/paused": None}}})
        await fleet.beating(3)
        assert set(api.members("llm")) == {"n1"}
        assert "Paused" not in api.conditions(Kind.POOL, "llm")


@simulated
async def test_a_report_in_the_response_to_an_own_write_is_used() -> None:
    """An apply of conditions needs no version, so its response may have a report that the watch did not deliver yet."""
    api = small_fleet(1)
    async with operator(api) as fleet:
        await fleet.beating(5)
        api.feed = None
        publish(api, "n0", no_llm(2))
        fleet.manager.on_object(Kind.NODE, "MODIFIED", node_with_drain(api))
        await fleet.beating(2)
        assert api.members("llm") == {}


def node_with_drain(api: FakeApi) -> dict[str, Any]:
    """Return an event of a drain with the version before the stored one."""
    body = node_object("n0", llm(), drain=True)
    stored = api.objects[Kind.NODE]["n0"]
    body["metadata"] |= {"uid": stored["metadata"]["uid"]}
    body["metadata"]["resourceVersion"] = str(int(stored["metadata"]["resourceVersion"]) - 1)
    body["metadata"]["generation"] = stored["metadata"]["generation"]
    body["status"]["conditions"] = stored["status"]["conditions"]
    stored["spec"]["drain"] = True
    return body


# Failures of writes.


@simulated
async def test_a_write_with_a_conflict_is_retried_at_once_after_a_read() -> None:
    api = small_fleet(2)
    async with operator(api) as fleet:
        await fleet.beating(5)
        api.feed = None
        api.edit(Kind.SLICE, "llm-0", {"metadata": {"annotations": {"example.org/edited": "true"}}})
        api.edit(Kind.POOL, "llm", {"metadata": {"annotations": {"example.org/edited": "true"}}})
        fleet.manager.on_object(Kind.NODE, "MODIFIED", changed(api, "n0", no_llm(2)))
        assert await until(lambda: set(api.members("llm")) == {"n1"}) < 0.5
        await fleet.beating(2)
        assert api.objects[Kind.POOL]["llm"]["status"]["members"] == 1


@simulated
async def test_a_write_with_a_conflict_is_retried_even_if_the_read_fails_in_an_unexpected_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    api = small_fleet(2)
    async with operator(api) as fleet:
        await fleet.beating(5)
        failures = [RuntimeError("a defect")]
        refresh = fleet.manager.resync.refresh

        async def fail_once(*arguments: Any) -> Any:
            if failures:
                raise failures.pop()
            return await refresh(*arguments)

        monkeypatch.setattr(fleet.manager.resync, "refresh", fail_once)
        api.feed = None
        api.edit(Kind.SLICE, "llm-0", {"metadata": {"annotations": {"example.org/edited": "true"}}})
        fleet.manager.on_object(Kind.NODE, "MODIFIED", changed(api, "n0", no_llm(2)))
        assert await until(lambda: set(api.members("llm")) == {"n1"}) < 3
        assert not failures


FOREIGN = condition("example.org/Audited", "True", "Passed", message="", lastTransitionTime="2026-01-01T00:00:00Z")


@pytest.mark.parametrize("kind", [Kind.POOL, Kind.GENERATOR])
@simulated
async def test_conditions_of_other_writers_on_pools_and_generators_stay_and_cause_no_write(kind: Kind) -> None:
    api = small_fleet(1)
    api.put(generator_object("pairs"))
    async with operator(api) as fleet:
        await fleet.beating(5)
        name = "llm" if kind is Kind.POOL else "pairs"
        status = api.objects[kind][name]["status"]
        api.edit(kind, name, {"status": {"conditions": [FOREIGN, *status["conditions"]]}})
        writes = len(api.writes)
        await fleet.beating(60)
        assert api.objects[kind][name]["status"]["conditions"][0] == FOREIGN
        assert not [write for write in api.writes[writes:] if write.kind is kind]
        api.edit(kind, name, {"metadata": {"annotations": {"hotpool.dev/paused": "true"}}})
        await fleet.beating(5)
        assert FOREIGN in api.objects[kind][name]["status"]["conditions"]


def changed(api: FakeApi, name: str, content: dict[str, Any]) -> dict[str, Any]:
    """Publish a report; return the event that a watch would deliver."""
    publish(api, name, content)
    return api.objects[Kind.NODE][name]


@simulated
async def test_a_slice_without_a_watch_event_is_found_by_the_conflict() -> None:
    api = small_fleet(1)
    async with operator(api) as fleet:
        await fleet.beating(5)
        api.feed = None
        api.put(pool_object("asr", requires=requires("asr")))
        api.put(slice_object("asr", 0, "stranger"))
        fleet.watch()
        fleet.manager.on_object(Kind.POOL, "ADDED", api.objects[Kind.POOL]["asr"])
        api.put(node_object("a", ASR))
        assert await until(lambda: api.members("asr") == {"a": "Ready"}) < 3


@simulated
async def test_a_retryable_error_is_retried_with_growing_back_off_until_it_succeeds() -> None:
    api = small_fleet(2)
    async with operator(api) as fleet:
        await fleet.beating(5)
        attempts: list[float] = []

        def fault(verb: str, kind: Kind, name: str) -> BaseException | None:
            if (kind, name) == (Kind.SLICE, "llm-0") and verb == "patch":
                attempts.append(now())
                return TimeoutError()
            return None

        api.fault = fault
        publish(api, "n0", no_llm(2))
        await fleet.beating(300)
        gaps = [later - earlier for earlier, later in itertools.pairwise(attempts)]
        assert len(attempts) < 20
        assert gaps[0] <= 1.1
        assert max(gaps) > 25
        assert max(gaps) <= 30.1
        api.fault = None
        assert await until(lambda: set(api.members("llm")) == {"n1"}) <= 30.1


@simulated
async def test_a_success_resets_the_back_off_of_a_pool() -> None:
    api = small_fleet(2)
    async with operator(api) as fleet:
        api.fault = refusing(500, kind=Kind.SLICE)
        publish(api, "n0", no_llm(2))
        await fleet.beating(100)
        api.fault = None
        await until(lambda: set(api.members("llm")) == {"n1"})
        await fleet.beating(5)
        api.fault = refusing(500, kind=Kind.SLICE)
        publish(api, "n0", llm(3))
        await asyncio.sleep(0.1)
        api.fault = None
        assert await until(lambda: set(api.members("llm")) == {"n0", "n1"}) <= 1.1


@pytest.mark.parametrize("status", [422, 500])
@simulated
async def test_one_failing_pool_does_not_delay_another(status: int) -> None:
    api = small_fleet(2)
    for number in range(40):
        api.put(pool_object(f"bad{number}", requires=requires("llm")))
    async with operator(api) as fleet:
        await fleet.beating(5)
        api.fault = lambda _, __, name: refusing(status, name=name)("", Kind.SLICE, name) if "bad" in name else None
        for turn in range(5):
            publish(api, "n0", no_llm(turn + 2) if turn % 2 == 0 else llm(turn + 2))
            expected = {"n1"} if turn % 2 == 0 else {"n0", "n1"}
            assert await until(lambda wanted=expected: set(api.members("llm")) == wanted) < 0.1  # type: ignore[misc]
            await fleet.beating(3)


@simulated
async def test_membership_never_waits_behind_conditions_of_nodes() -> None:
    api = small_fleet(2)
    for number in range(1000):
        api.put(node_object(f"x{number}", ASR))
    async with operator(api) as fleet:
        await fleet.beating(30)
        api.delay = 0.04
        for number in range(1000):
            api.edit(Kind.NODE, f"x{number}", {"spec": {"drain": True}})
        publish(api, "n0", no_llm(2))
        assert await until(lambda: set(api.members("llm")) == {"n1"}) < 0.2
        conditions = [write for write in api.written(Kind.NODE) if write.at > now() - 0.2]
        assert len(conditions) < 100


@simulated
async def test_a_refused_generated_pool_delays_no_other() -> None:
    api = FakeApi()
    api.put(generator_object("g", graceSeconds=60))
    api.put(node_object("s", speech("zh", "en")))
    async with operator(api) as fleet:
        await fleet.beating(5)
        api.fault = refusing(403, kind=Kind.POOL, verb="create")
        publish(api, "s", speech("zh", "de", sequence=2))
        api.edit(Kind.POOL, pair("zh-en"), {"spec": {"minMembers": 9}})
        await fleet.beating(5)
        assert api.objects[Kind.POOL][pair("zh-en")]["spec"]["minMembers"] == 1
        await fleet.beating(65)
        assert api.objects[Kind.POOL] == {}
        assert api.objects[Kind.GENERATOR]["g"]["status"]["pools"] == 2
        api.fault = None
        assert await until(lambda: set(api.objects[Kind.POOL]) == {pair("zh-de"), pair("de-zh")}) <= 30.1


@simulated
async def test_an_error_of_one_key_does_not_end_the_work_on_others() -> None:
    api = small_fleet(2)
    api.put(pool_object("broken", requires=requires("llm")))
    async with operator(api) as fleet:
        await fleet.beating(5)

        def fault(_verb: str, _kind: Kind, name: str) -> BaseException | None:
            return ZeroDivisionError("a bug") if name.startswith("broken") else None

        api.fault = fault
        publish(api, "n0", no_llm(2))
        assert await until(lambda: set(api.members("llm")) == {"n1"}) < 0.1
        await fleet.beating(30)
        api.fault = None
        assert await until(lambda: set(api.members("broken")) == {"n1"}) < 31


@simulated
async def test_lost_leadership_ends_the_manager_and_all_writes() -> None:
    api = small_fleet(2)
    async with operator(api) as fleet:
        await fleet.beating(5)
        fleet.leading = False
        before = len(api.writes)
        publish(api, "n0", no_llm(2))
        await asyncio.sleep(1)
        assert api.writes[before:] == []
        assert fleet.tasks[0].done()
        assert isinstance(fleet.tasks[0].exception(), NotLeaderError)
        fleet.tasks.clear()


# Nodes.


@simulated
async def test_conditions_of_a_node_are_written_on_transitions_only() -> None:
    api = FakeApi()
    api.put(node_object("n0"))
    async with operator(api) as fleet:
        assert api.conditions(Kind.NODE, "n0")["Ready"] == ("Unknown", "AwaitingReport")
        publish(api, "n0", ASR)
        await asyncio.sleep(0.1)
        assert api.conditions(Kind.NODE, "n0") == {
            "Ready": ("True", "Live"),
            "Draining": ("False", "NotRequested"),
        }
        assert api.objects[Kind.NODE]["n0"]["status"]["ready"] == "True"
        before = len(api.writes)
        await fleet.beating(60)
        publish(api, "n0", {**ASR, "sequence": 2, "services": [], "capabilities": []})
        await fleet.beating(5)
        assert api.writes[before:] == []
        publish(api, "n0", {"epoch": "bad"})
        await asyncio.sleep(0.1)
        assert api.conditions(Kind.NODE, "n0")["Ready"] == ("False", "InvalidReport")


@simulated
async def test_conditions_have_the_generation_of_a_changed_spec() -> None:
    api = small_fleet(1)
    async with operator(api):
        api.edit(Kind.NODE, "n0", {"spec": {"services": [{"id": "q", "desired": "Stopped"}]}})
        await asyncio.sleep(0.1)
        body = api.objects[Kind.NODE]["n0"]
        generation = body["metadata"]["generation"]
        assert {c["observedGeneration"] for c in body["status"]["conditions"]} == {generation}


@simulated
async def test_conditions_of_other_writers_stay_and_cause_no_write() -> None:
    api = small_fleet(1)
    async with operator(api) as fleet:
        stored = api.objects[Kind.NODE]["n0"]["status"]
        api.edit(Kind.NODE, "n0", {"status": {"conditions": [*stored["conditions"], condition("GpuHealthy")]}})
        await fleet.beating(2)
        before = len(api.writes)
        for turn in range(3):
            publish(api, "n0", report(service("q", "llm"), service("x", f"t{turn}"), sequence=turn + 2))
            await fleet.beating(2)
        assert [write for write in api.writes[before:] if write.kind is Kind.NODE] == []
        assert "GpuHealthy" in api.conditions(Kind.NODE, "n0")


@simulated
async def test_an_object_that_cannot_be_decoded_stops_no_other() -> None:
    api = small_fleet(2)
    async with operator(api) as fleet:
        bodies: list[Any] = [None, [], {"metadata": {}}, {"metadata": {"name": "n1"}, "status": []}]
        for body in bodies:
            for kind in CUSTOM_KINDS:
                fleet.manager.on_object(kind, "MODIFIED", body)
        publish(api, "n0", no_llm(2))
        await fleet.beating(2)
        assert set(api.members("llm")) == {"n1"}


# Generators (D5).


def pair(source_target: str) -> str:
    return pool_name("g", source_target)


@simulated
async def test_a_generator_creates_pools_with_members() -> None:
    api = FakeApi()
    api.put(generator_object("g", rule={"languagePairs": {"manyToOne": True}}))
    api.put(node_object("s", speech("zh", "en")))
    async with operator(api) as fleet:
        fleet.beat()
        await asyncio.sleep(1.5)
        assert set(api.objects[Kind.POOL]) == {pair(key) for key in ("zh-en", "en-zh", "*-en", "*-zh")}
        assert all(api.members(name) == {"s": "Ready"} for name in api.objects[Kind.POOL])
        status = api.objects[Kind.GENERATOR]["g"]["status"]
        assert (status["pools"], status["notAdmittedCount"], status["ready"]) == (4, 0, "True")
        before = len(api.writes)
        await fleet.beating(30)
        assert api.writes[before:] == []


@simulated
async def test_a_generated_pool_edited_or_deleted_by_hand_is_restored() -> None:
    api = FakeApi()
    api.put(generator_object("g"))
    api.put(node_object("s", speech("zh", "en")))
    async with operator(api) as fleet:
        await fleet.beating(5)
        api.edit(Kind.POOL, pair("zh-en"), {"spec": {"minMembers": 9, "generated": None}})
        await fleet.beating(2)
        spec = api.objects[Kind.POOL][pair("zh-en")]["spec"]
        assert (spec["minMembers"], spec["generated"]["key"]) == (1, "zh-en")
        api.delete(Kind.POOL, pair("zh-en"))
        await fleet.beating(3)
        assert api.members(pair("zh-en")) == {"s": "Ready"}


@simulated
async def test_a_generated_pool_is_deleted_after_it_was_empty_for_the_grace_time() -> None:
    api = FakeApi()
    api.put(generator_object("g", graceSeconds=120))
    api.put(node_object("s", speech("zh", "en")))
    async with operator(api) as fleet:
        await fleet.beating(5)
        publish(api, "s", speech("zh", sequence=2))
        began = now()
        await fleet.beating(119)
        assert api.members(pair("zh-en")) == {}
        assert pair("zh-en") in api.objects[Kind.POOL]
        await until(lambda: pair("zh-en") not in api.objects[Kind.POOL])
        assert 120 <= now() - began < 121
        await fleet.beating(2)
        assert api.objects[Kind.GENERATOR]["g"]["status"]["pools"] == 0
        assert Key(Kind.POOL, pair("zh-en")) not in fleet.keys


@simulated
async def test_an_unsupported_language_code_does_not_stop_a_generator() -> None:
    api = FakeApi()
    api.put(generator_object("g", rule={"languagePairs": {"manyToOne": True}}))
    api.put(node_object("s", speech("zh", "en", "es-419")))
    async with operator(api) as fleet:
        await fleet.beating(2)
        assert set(api.objects[Kind.POOL]) == {pair(key) for key in ("zh-en", "en-zh", "*-en", "*-zh")}


# Redis (E5).


@simulated
async def test_an_outage_of_redis_does_not_affect_kubernetes_and_redis_catches_up() -> None:
    api, redis = small_fleet(3), FakeRedis()
    async with operator(api, redis) as fleet:
        await fleet.beating(10)
        assert set(redis.pools["llm"].ready) == {"n0", "n1", "n2"}
        redis.fault = RetryableError("away")
        publish(api, "n0", no_llm(2))
        assert await until(lambda: set(api.members("llm")) == {"n1", "n2"}) < 0.1
        await fleet.beating(3)
        publish(api, "n1", no_llm(2))
        assert await until(lambda: set(api.members("llm")) == {"n2"}) < 0.1
        before = len(api.writes)
        await fleet.beating(60)
        assert api.writes[before:] == []
        redis.fault = None
        assert await until(lambda: set(redis.pools["llm"].ready) == {"n2"}) <= 1.1
        assert api.writes[before:] == []


@simulated
async def test_each_change_is_sent_to_redis_without_waiting_for_the_pace_of_slices() -> None:
    api, redis = small_fleet(5), FakeRedis()
    async with operator(api, redis) as fleet:
        await fleet.beating(10)
        for number in range(4):
            publish(api, f"n{number}", no_llm(2))
            assert await until(lambda gone=f"n{number}": gone not in redis.pools["llm"].ready) < 0.05  # type: ignore[misc]
        assert len(api.members("llm")) == 4


@simulated
async def test_the_deletion_of_a_pool_and_of_a_node_deletes_them_in_redis() -> None:
    api, redis = small_fleet(2), FakeRedis()
    async with operator(api, redis) as fleet:
        await fleet.beating(10)
        assert set(redis.nodes) == {"n0", "n1"}
        api.delete(Kind.POOL, "llm")
        api.delete(Kind.NODE, "n0")
        await fleet.beating(0.1)
        assert (set(redis.pools), set(redis.nodes)) == (set(), {"n1"})
        assert "drop_pool" in redis.writes_of("llm")


@simulated
async def test_a_new_leader_deletes_pools_that_are_gone_from_a_slow_redis_before_it_has_written_all_others() -> None:
    api, redis = small_fleet(1), FakeRedis(delay=0.2)
    for number in range(200):
        api.put(pool_object(f"p{number}", requires=requires("llm")))
    gone = PoolDocument("gone", "uid-gone", None, None, frozenset({"n0"}), frozenset(), frozenset())
    redis.pools["gone"] = gone
    async with operator(api, redis):
        await until(lambda: len(redis.pools) == 201)
        written = [name for _, verb, name in redis.log if verb in {"replace_pool", "drop_pool"}]
        assert written.index("gone") < 2 * RedisTarget.concurrency[Kind.POOL]


@simulated
async def test_a_node_that_is_offline_or_leaves_is_not_in_redis() -> None:
    api, redis = small_fleet(2), FakeRedis()
    async with operator(api, redis) as fleet:
        await fleet.beating(10)
        publish(api, "n0", llm(2, leaving=True))
        assert await until(lambda: set(redis.nodes) == {"n1"}) < 0.1
        await asyncio.sleep(4 * H + 1)
        assert set(redis.nodes) == set()


@simulated
async def test_a_paused_pool_stays_in_redis_even_after_a_restart() -> None:
    api, redis = small_fleet(2), FakeRedis()
    async with operator(api, redis) as fleet:
        await fleet.beating(10)
        api.edit(Kind.POOL, "llm", {"metadata": {"annotations": {"hotpool.dev/paused": "true"}}})
        await fleet.beating(5)
    async with operator(api, redis) as fleet:
        await fleet.beating(10)
        assert set(redis.pools["llm"].ready) == {"n0", "n1"}
        redis.flush()
        await fleet.beating(10)
        assert set(redis.pools["llm"].ready) == {"n0", "n1"}
