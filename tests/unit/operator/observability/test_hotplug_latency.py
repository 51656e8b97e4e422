"""Hot-plug latency by stage and direction (requirement F4), with times as arguments."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime

import pytest
from tests.support.builders import member, slice_

from hotpool.api.meta import timestamp
from hotpool.core.model import Member, Slice
from hotpool.observability.hotplug_latency import MAX_TRACKED, HotplugLatency
from hotpool.observability.metrics import REGISTRY

UNIX = 1_800_000_000.0
STAGES = ("report", "plan", "redis", "slice", "total_redis", "total_slice")


def stamp(seconds_ago: float) -> str:
    return timestamp(datetime.fromtimestamp(UNIX - seconds_ago, UTC))


def sample(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def metric_values() -> dict[tuple[str, str], tuple[float, float]]:
    """Return stage and direction → count and sum. Unknown times have the direction `unknown`."""
    found = {}
    for stage in STAGES:
        for direction in ("gain", "withdrawal"):
            names = ("hotpool_hotplug_seconds_count", "hotpool_hotplug_seconds_sum")
            count, total = (sample(name, stage=stage, direction=direction) for name in names)
            found[stage, direction] = (count, total)
        found[stage, "unknown"] = (sample("hotpool_hotplug_unknown_total", stage=stage), 0.0)
    return found


Observed = Callable[[], dict[tuple[str, str], tuple[int, float]]]


@pytest.fixture
def observed() -> Observed:
    """Return a function that returns the observations since the start of the test."""
    before = metric_values()

    def since() -> dict[tuple[str, str], tuple[int, float]]:
        after = metric_values()
        found = {key: (int(after[key][0] - old[0]), round(after[key][1] - old[1], 3)) for key, old in before.items()}
        return {key: value for key, value in found.items() if value[0]}

    return since


def planned(states: Mapping[str, str]) -> dict[str, tuple[Member, ...]]:
    return {"p-0": tuple(member(node, state) for node, state in states.items())}  # type: ignore[arg-type]


def slices(**states: str) -> Mapping[str, Slice]:
    members = [member(node, state)._asdict() for node, state in states.items()]  # type: ignore[arg-type]
    return {"p-0": slice_("p", 0, members=members)}


def test_a_withdrawal_is_measured_stage_by_stage(observed: Observed) -> None:
    latency = HotplugLatency()
    latency.reported("a", ["p"], stamp(0.02), 100.0, UNIX)
    latency.planned("p", slices(a="Ready", b="Ready"), planned({"b": "Ready"}), 100.001)
    latency.published("p", 100.003, accepted=True)
    latency.stored("p", 100.008)
    assert observed() == {
        ("report", "withdrawal"): (1, 0.02),
        ("plan", "withdrawal"): (1, 0.001),
        ("redis", "withdrawal"): (1, 0.002),
        ("slice", "withdrawal"): (1, 0.007),
        ("total_redis", "withdrawal"): (1, 0.023),
        ("total_slice", "withdrawal"): (1, 0.028),
    }
    assert latency.in_progress == 0


@pytest.mark.parametrize(
    ("before", "after", "direction"),
    [
        ({}, {"a": "Ready"}, "gain"),
        ({}, {"a": "Suspect"}, "gain"),
        ({"a": "Suspect"}, {"a": "Ready"}, "gain"),
        ({"a": "Ready"}, {"a": "Suspect"}, "withdrawal"),
        ({"a": "Ready"}, {"a": "Draining"}, "withdrawal"),
        ({"a": "Suspect"}, {}, "withdrawal"),
    ],
)
def test_direction_depends_on_the_states_before_and_after(
    observed: Observed, before: dict[str, str], after: dict[str, str], direction: str
) -> None:
    latency = HotplugLatency()
    latency.reported("a", ["p"], stamp(0), 100.0, UNIX)
    latency.planned("p", slices(**before), planned(after), 100.0)
    assert {key[1] for key in observed()} == {direction}


def test_a_report_that_changes_no_membership_is_not_measured(observed: Observed) -> None:
    latency = HotplugLatency()
    latency.reported("a", [], stamp(0), 100.0, UNIX)
    latency.reported("a", ["p"], stamp(0), 100.0, UNIX)
    latency.planned("p", slices(a="Ready"), planned({"a": "Ready"}), 100.0)
    latency.published("p", 100.0, accepted=True)
    latency.stored("p", 100.0)
    assert observed() == {}
    assert latency.in_progress == 0


@pytest.mark.parametrize("time", [stamp(-5), "t", "", "2026-01-01T00:00:00", "99999-01-01"])
def test_stages_across_machines_are_unknown_if_clocks_disagree_or_the_time_is_invalid(
    observed: Observed, time: str
) -> None:
    latency = HotplugLatency()
    latency.reported("a", ["p"], time, 100.0, UNIX)
    latency.planned("p", {}, planned({"a": "Ready"}), 101.0)
    latency.published("p", 102.0, accepted=True)
    latency.stored("p", 110.0)
    assert observed() == {
        ("report", "unknown"): (1, 0),
        ("plan", "gain"): (1, 1),
        ("redis", "gain"): (1, 1),
        ("slice", "gain"): (1, 9),
        ("total_redis", "unknown"): (1, 0),
        ("total_slice", "unknown"): (1, 0),
    }


def test_a_slice_that_waits_for_its_round_is_measured_until_it_is_stored(observed: Observed) -> None:
    latency = HotplugLatency()
    latency.reported("a", ["p"], stamp(0), 100.0, UNIX)
    for now in (100.0, 100.5, 101.0):
        latency.planned("p", slices(a="Ready"), planned({}), now)
        latency.published("p", now, accepted=True)
    latency.stored("p", 101.0)
    assert observed()["slice", "withdrawal"] == (1, 1)
    assert observed()["redis", "withdrawal"] == (1, 0)


def test_a_change_that_is_reverted_before_it_is_stored_has_no_slice_stage(observed: Observed) -> None:
    latency = HotplugLatency()
    latency.reported("a", ["p"], stamp(0), 100.0, UNIX)
    latency.planned("p", slices(a="Ready"), planned({}), 100.0)
    latency.published("p", 100.0, accepted=True)
    latency.reported("a", ["p"], stamp(0), 100.3, UNIX)
    latency.planned("p", slices(a="Ready"), planned({"a": "Ready"}), 100.3)
    latency.published("p", 100.3, accepted=True)
    latency.stored("p", 101.0)
    assert not any(stage.endswith("slice") for stage, _ in observed())
    assert latency.in_progress == 0


def test_the_redis_stage_is_absent_without_redis_and_unknown_if_redis_is_unreachable(observed: Observed) -> None:
    latency = HotplugLatency()
    for accepted in (None, False):
        latency.reported("a", ["p"], stamp(0), 100.0, UNIX)
        latency.planned("p", {}, planned({"a": "Ready"}), 100.0)
        latency.published("p", 100.0, accepted=accepted)
        latency.stored("p", 100.0)
    assert observed()["redis", "unknown"] == (1, 0)
    assert ("redis", "gain") not in observed()


def test_a_slice_that_was_stored_without_a_response_is_unknown(observed: Observed) -> None:
    latency = HotplugLatency()
    latency.reported("a", ["p"], stamp(0), 100.0, UNIX)
    latency.planned("p", {}, planned({"a": "Ready"}), 100.0)
    latency.planned("p", slices(a="Ready"), planned({"a": "Ready"}), 103.0)
    latency.published("p", 103.0, accepted=True)
    assert observed()["slice", "unknown"] == (1, 0)
    assert latency.in_progress == 0


def test_memory_is_bounded_and_the_changes_of_another_leader_are_dropped(observed: Observed) -> None:
    latency = HotplugLatency()
    for number in range(300):
        latency.reported(f"n{number}", [f"p{pool}" for pool in range(100)], stamp(0), 100.0, UNIX)
    assert latency.in_progress == MAX_TRACKED
    assert observed()["plan", "unknown"] == (300 * 100 - MAX_TRACKED, 0)
    latency.forget("p0")
    assert latency.in_progress == MAX_TRACKED - MAX_TRACKED // 100
    latency.clear()
    assert latency.in_progress == 0


def test_no_label_grows_with_nodes_or_pools() -> None:
    found = [sample for metric in REGISTRY.collect() if "hotplug" in metric.name for sample in metric.samples]
    labels = {name for item in found for name in item.labels}
    assert labels <= {"stage", "direction", "le"}
    assert {item.labels["stage"] for item in found} <= set(STAGES)
