"""One log line for each change of membership (requirement F8)."""

import asyncio
from collections import Counter
from typing import Any

import pytest
from structlog.testing import capture_logs
from tests.support.llm_fleet import no_llm, publish, small_fleet
from tests.support.simulated_fleet import FakeApi, operator, refusing, simulated, until

from hotpool.clock import Clock
from hotpool.core.cluster_cache import ClusterCache
from hotpool.core.model import Kind, Member
from hotpool.events import membership_log
from hotpool.events.builders import MembershipDifference


def changes(logs: Any) -> list[tuple[str, str]]:
    """Return change and node of each line."""
    return [(line["event"], line["node"]) for line in logs if line["event"] in {"joined", "left", "changed"}]


@simulated
async def test_each_node_that_joins_leaves_or_changes_has_one_line_with_the_reason() -> None:
    with capture_logs() as logs:
        async with operator(small_fleet(2)) as fleet:
            api: FakeApi = fleet.api
            await fleet.beating(3)
            assert changes(logs) == [("joined", "n0"), ("joined", "n1")]
            api.edit(Kind.NODE, "n0", {"spec": {"drain": True}})
            await fleet.beating(3)
            publish(api, "n0", no_llm(2))
            await fleet.beating(3)
            since = api.objects[Kind.SLICE]["llm-0"]["members"][0]["since"]
            api.delete(Kind.NODE, "n1")
            await fleet.beating(60)
    lines = [line for line in logs if line.get("node")]
    assert [(line["event"], line["node"], line["former"], line["state"], line["reason"]) for line in lines] == [
        ("joined", "n0", None, "Ready", "Live"),
        ("joined", "n1", None, "Ready", "Live"),
        ("changed", "n0", "Ready", "Draining", "Draining"),
        ("left", "n0", "Draining", None, "TypeNotReady"),
        ("left", "n1", "Ready", None, "Deleted"),
    ]
    assert {line["pool"] for line in lines} == {"llm"}
    assert lines[-1]["since"] == since


@simulated
async def test_heartbeats_a_move_to_another_slice_and_a_restart_cause_no_line() -> None:
    api = small_fleet(11, sliceSize=5)
    async with operator(api) as fleet:
        await fleet.beating(15)
        with capture_logs() as logs:
            for name in ("n0", "n5"):
                publish(api, name, no_llm(2))
            await fleet.beating(200)
            assert len(api.objects[Kind.SLICE]) == 2, "the only member of the third slice moved"
            assert changes(logs) == [("left", "n0"), ("left", "n5")]
    with capture_logs() as logs:
        async with operator(api) as fleet:
            await fleet.beating(60)
    assert changes(logs) == []


@simulated
async def test_a_round_that_the_end_of_leadership_cut_has_lines_of_what_was_stored() -> None:
    api = small_fleet(4, sliceSize=2)
    with capture_logs() as logs:
        async with operator(api) as fleet:
            await fleet.beating(15)
            api.fault = refusing(503, kind=Kind.SLICE, name="llm-1")
            for name in ("n0", "n2"):
                publish(api, name, no_llm(2))
            await until(lambda: "n0" not in api.members("llm"))
            await fleet.lose_leadership()
            api.fault = None
            fleet.leading = True
            await fleet.lead()
            await fleet.beating(15)
            assert "SliceRepaired" not in {reason for reason, _ in api.event_notes("llm")}
    assert changes(logs)[4:] == [("left", "n0"), ("left", "n2")]


async def test_a_mass_change_is_written_in_turns_and_a_log_that_takes_no_lines_has_a_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(membership_log, "MAX_PENDING", 20_000)
    lines = membership_log.MembershipLog(ClusterCache(), Clock())
    mass = MembershipDifference({f"n{number}": Member(f"n{number}", "Ready", "t") for number in range(2000)}, {}, {})
    with capture_logs() as logs:
        for _ in range(13):
            lines.add("mass", mass, {})
        assert Counter(line["event"] for line in logs) == {"changes not logged one by one": 3}
        writing = asyncio.create_task(lines.run())
        turns = 0
        while len(logs) < 20_003:
            turns += 1
            await asyncio.sleep(0)
        lines.add("mass", mass, {})
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
    assert turns > 2
    assert len(logs) == 22_003, "the rest is written at the end"


@simulated
async def test_a_deleted_pool_has_one_line() -> None:
    api = small_fleet(3)
    with capture_logs() as logs:
        async with operator(api) as fleet:
            await fleet.beating(5)
            api.delete(Kind.POOL, "llm")
            await fleet.beating(5)
    assert [line["members"] for line in logs if line["event"] == "pool deleted"] == [3]
    assert Counter(change for change, _ in changes(logs)) == {"joined": 3}
