"""Hot-plug latency by stage and direction (requirement F4), with clocks that are given."""

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


def figures() -> dict[tuple[str, str], tuple[float, float]]:
    """Stage and direction → count and sum; the unknown under the direction `unknown`."""
    found = {}
    for stage in STAGES:
        for direction in ("gain", "withdrawal"):
            names = ("hotpool_hotplug_seconds_count", "hotpool_hotplug_seconds_sum")
            count, total = (sample(name, stage=stage, direction=direction) for name in names)
            found[stage, direction] = (count, total)
        found[stage, "unknown"] = (sample("hotpool_hotplug_unknown_total", stage=stage), 0.0)
    return found


Seen = Callable[[], dict[tuple[str, str], tuple[int, float]]]


@pytest.fixture
def seen() -> Seen:
    """What was observed since the test began."""
    before = figures()

    def since() -> dict[tuple[str, str], tuple[int, float]]:
        after = figures()
        found = {key: (int(after[key][0] - old[0]), round(after[key][1] - old[1], 3)) for key, old in before.items()}
        return {key: value for key, value in found.items() if value[0]}

    return since


def wanted(states: Mapping[str, str]) -> dict[str, tuple[Member, ...]]:
    return {"p-0": tuple(member(node, state) for node, state in states.items())}  # type: ignore[arg-type]


def slices(**states: str) -> Mapping[str, Slice]:
    members = [member(node, state)._asdict() for node, state in states.items()]  # type: ignore[arg-type]
    return {"p-0": slice_("p", 0, members=members)}


def test_a_withdrawal_is_measured_stage_by_stage(seen: Seen) -> None:
    latency = HotplugLatency()
    latency.reported("a", ["p"], stamp(0.02), 100.0, UNIX)
    latency.planned("p", slices(a="Ready", b="Ready"), wanted({"b": "Ready"}), 100.001)
    latency.published("p", 100.003, accepted=True)
    latency.stored("p", 100.008)
    assert seen() == {
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
def test_direction_is_what_became_of_the_member(
    seen: Seen, before: dict[str, str], after: dict[str, str], direction: str
) -> None:
    latency = HotplugLatency()
    latency.reported("a", ["p"], stamp(0), 100.0, UNIX)
    latency.planned("p", slices(**before), wanted(after), 100.0)
    assert {key[1] for key in seen()} == {direction}


def test_a_report_that_moves_nobody_is_not_measured(seen: Seen) -> None:
    latency = HotplugLatency()
    latency.reported("a", [], stamp(0), 100.0, UNIX)
    latency.reported("a", ["p"], stamp(0), 100.0, UNIX)
    latency.planned("p", slices(a="Ready"), wanted({"a": "Ready"}), 100.0)
    latency.published("p", 100.0, accepted=True)
    latency.stored("p", 100.0)
    assert seen() == {}
    assert latency.in_progress == 0


@pytest.mark.parametrize("said", [stamp(-5), "t", "", "2026-01-01T00:00:00", "99999-01-01"])
def test_stages_across_machines_are_unknown_where_clocks_disagree_or_nothing_was_said(seen: Seen, said: str) -> None:
    latency = HotplugLatency()
    latency.reported("a", ["p"], said, 100.0, UNIX)
    latency.planned("p", {}, wanted({"a": "Ready"}), 101.0)
    latency.published("p", 102.0, accepted=True)
    latency.stored("p", 110.0)
    assert seen() == {
        ("report", "unknown"): (1, 0),
        ("plan", "gain"): (1, 1),
        ("redis", "gain"): (1, 1),
        ("slice", "gain"): (1, 9),
        ("total_redis", "unknown"): (1, 0),
        ("total_slice", "unknown"): (1, 0),
    }


def test_a_slice_that_waits_for_its_round_is_measured_to_its_end(seen: Seen) -> None:
    latency = HotplugLatency()
    latency.reported("a", ["p"], stamp(0), 100.0, UNIX)
    for moment in (100.0, 100.5, 101.0):
        latency.planned("p", slices(a="Ready"), wanted({}), moment)
        latency.published("p", moment, accepted=True)
    latency.stored("p", 101.0)
    assert seen()["slice", "withdrawal"] == (1, 1)
    assert seen()["redis", "withdrawal"] == (1, 0)


def test_a_change_that_was_taken_back_before_it_was_stored_is_not_measured_there(seen: Seen) -> None:
    latency = HotplugLatency()
    latency.reported("a", ["p"], stamp(0), 100.0, UNIX)
    latency.planned("p", slices(a="Ready"), wanted({}), 100.0)
    latency.published("p", 100.0, accepted=True)
    latency.reported("a", ["p"], stamp(0), 100.3, UNIX)
    latency.planned("p", slices(a="Ready"), wanted({"a": "Ready"}), 100.3)
    latency.published("p", 100.3, accepted=True)
    latency.stored("p", 101.0)
    assert not any(stage.endswith("slice") for stage, _ in seen())
    assert latency.in_progress == 0


def test_without_redis_nothing_is_said_of_it_and_a_redis_that_was_away_is_unknown(seen: Seen) -> None:
    latency = HotplugLatency()
    for accepted in (None, False):
        latency.reported("a", ["p"], stamp(0), 100.0, UNIX)
        latency.planned("p", {}, wanted({"a": "Ready"}), 100.0)
        latency.published("p", 100.0, accepted=accepted)
        latency.stored("p", 100.0)
    assert seen()["redis", "unknown"] == (1, 0)
    assert ("redis", "gain") not in seen()


def test_a_slice_that_was_stored_without_an_answer_is_unknown(seen: Seen) -> None:
    latency = HotplugLatency()
    latency.reported("a", ["p"], stamp(0), 100.0, UNIX)
    latency.planned("p", {}, wanted({"a": "Ready"}), 100.0)
    latency.planned("p", slices(a="Ready"), wanted({"a": "Ready"}), 103.0)
    latency.published("p", 103.0, accepted=True)
    assert seen()["slice", "unknown"] == (1, 0)
    assert latency.in_progress == 0


def test_memory_is_bounded_and_what_another_leader_had_to_do_is_forgotten(seen: Seen) -> None:
    latency = HotplugLatency()
    for number in range(300):
        latency.reported(f"n{number}", [f"p{pool}" for pool in range(100)], stamp(0), 100.0, UNIX)
    assert latency.in_progress == MAX_TRACKED
    assert seen()["plan", "unknown"] == (300 * 100 - MAX_TRACKED, 0)
    latency.forget("p0")
    assert latency.in_progress == MAX_TRACKED - MAX_TRACKED // 100
    latency.clear()
    assert latency.in_progress == 0


def test_no_label_grows_with_nodes_or_pools() -> None:
    found = [sample for metric in REGISTRY.collect() if "hotplug" in metric.name for sample in metric.samples]
    labels = {name for item in found for name in item.labels}
    assert labels <= {"stage", "direction", "le"}
    assert {item.labels["stage"] for item in found} <= set(STAGES)
