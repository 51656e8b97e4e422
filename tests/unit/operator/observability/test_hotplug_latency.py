"""Hot-plug latency by stage and direction (requirement F4), with times as arguments."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Literal

import pytest

from hotpool.api.meta import timestamp
from hotpool.observability import hotplug_latency
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


@pytest.mark.parametrize("direction", ["gain", "withdrawal"])
def test_a_change_is_measured_stage_by_stage(observed: Observed, direction: Literal["gain", "withdrawal"]) -> None:
    report = hotplug_latency.seen(stamp(0.02), 100.0, UNIX)
    hotplug_latency.observe("kubernetes", direction, report, began=100.001, ended=100.008)
    hotplug_latency.observe("redis", direction, report, began=100.002, ended=100.003)
    assert observed() == {
        ("report", direction): (1, 0.02),
        ("plan", direction): (1, 0.001),
        ("redis", direction): (1, 0.001),
        ("slice", direction): (1, 0.007),
        ("total_redis", direction): (1, 0.023),
        ("total_slice", direction): (1, 0.028),
    }


@pytest.mark.parametrize("time", [stamp(-5), "t", "", "2026-01-01T00:00:00", "99999-01-01"])
def test_stages_across_machines_are_unknown_if_clocks_disagree_or_the_time_is_invalid(
    observed: Observed, time: str
) -> None:
    report = hotplug_latency.seen(time, 100.0, UNIX)
    hotplug_latency.observe("kubernetes", "gain", report, began=101.0, ended=110.0)
    hotplug_latency.observe("redis", "gain", report, began=101.0, ended=102.0)
    assert observed() == {
        ("report", "unknown"): (1, 0),
        ("plan", "gain"): (1, 1),
        ("redis", "gain"): (1, 1),
        ("slice", "gain"): (1, 9),
        ("total_redis", "unknown"): (1, 0),
        ("total_slice", "unknown"): (1, 0),
    }


def test_no_label_grows_with_nodes_or_pools() -> None:
    found = [sample for metric in REGISTRY.collect() if "hotplug" in metric.name for sample in metric.samples]
    labels = {name for item in found for name in item.labels}
    assert labels <= {"stage", "direction", "le"}
    assert {item.labels["stage"] for item in found} <= set(STAGES)
