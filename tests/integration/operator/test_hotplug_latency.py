"""A node's last transitions in Redis (requirement F2) and hot-plug latency (F4), over the fakes in simulated time."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
from tests.support.builders import H
from tests.support.llm_fleet import llm, no_llm, publish, small_fleet
from tests.support.simulated_fleet import FakeRedis, now, operator, simulated, until

from hotpool.api.meta import timestamp
from hotpool.core.model import Kind
from hotpool.errors import RetryableError
from hotpool.observability.metrics import REGISTRY

pytestmark = pytest.mark.timeout(60)


def report_time() -> str:
    return timestamp(datetime.fromtimestamp(now(), UTC))


def transitions(redis: FakeRedis, name: str) -> list[tuple[Any, ...]]:
    return [(t.before, t.after, t.gained, dict(t.lost)) for t in redis.history.get(name, [])]


def counts() -> dict[tuple[str, str], float]:
    """Return (stage, direction) → number of observations so far."""
    found: dict[tuple[str, str], float] = {}
    for metric in REGISTRY.collect():
        for sample in metric.samples:
            if sample.name == "hotpool_hotplug_seconds_count":
                found[sample.labels["stage"], sample.labels["direction"]] = sample.value
            if sample.name == "hotpool_hotplug_unknown_total":
                found[sample.labels["stage"], "unknown"] = sample.value
    return found


class ObservationCounter:
    """Counts observations since its creation."""

    def __init__(self) -> None:
        self._before = counts()

    def __call__(self) -> dict[tuple[str, str], float]:
        after = {key: value - self._before.get(key, 0) for key, value in counts().items()}
        return {key: value for key, value in after.items() if value}


STAGES = ("report", "plan", "redis", "slice", "total_redis", "total_slice")


@simulated
async def test_transitions_of_a_node_are_in_redis_newest_first_even_while_it_is_offline() -> None:
    api, redis = small_fleet(1), FakeRedis()
    async with operator(api, redis) as fleet:
        await fleet.beating(15)
        assert transitions(redis, "n0") == []
        publish(api, "n0", no_llm(2))
        await fleet.beating(2)
        publish(api, "n0", llm(3))
        await fleet.beating(2)
        await asyncio.sleep(4 * H + 1)
        assert redis.nodes == {}
        fleet.beat()
        await asyncio.sleep(1)
        assert transitions(redis, "n0") == [
            ("Offline", "Live", (), {}),
            ("Suspect", "Offline", (), {}),
            ("Live", "Suspect", (), {}),
            (None, None, ("llm",), {}),
            (None, None, (), {"llm": "Stopped"}),
        ]
        assert set(redis.nodes) == {"n0"}


@simulated
async def test_an_unchanged_node_and_a_restart_add_no_transition() -> None:
    api, redis = small_fleet(2), FakeRedis()
    async with operator(api, redis) as fleet:
        await fleet.beating(15)
        publish(api, "n0", no_llm(2))
        await fleet.beating(400)
        before = transitions(redis, "n0")
    async with operator(api, redis) as fleet:
        await fleet.beating(60)
    assert transitions(redis, "n0") == before
    assert len(before) == 1


@simulated
async def test_what_an_outage_of_redis_changed_is_one_transition_when_it_is_back() -> None:
    api, redis = small_fleet(1), FakeRedis()
    async with operator(api, redis) as fleet:
        await fleet.beating(15)
        redis.fault = RetryableError("away")
        for turn in range(15):
            publish(api, "n0", llm(turn + 2) if turn % 2 else no_llm(turn + 2))
            await fleet.beating(2)
        redis.fault = None
        assert await until(lambda: bool(transitions(redis, "n0"))) < 10
        await fleet.beating(2)
        assert transitions(redis, "n0") == [(None, None, (), {"llm": "Stopped"})]


@simulated
async def test_a_deleted_node_leaves_no_history_even_if_it_was_offline() -> None:
    api, redis = small_fleet(2), FakeRedis()
    async with operator(api, redis) as fleet:
        await fleet.beating(15)
        await fleet.beating(5 * H, "n1")
        publish(api, "n1", no_llm(2))
        await fleet.beating(2, "n1")
        assert transitions(redis, "n0")
        assert transitions(redis, "n1")
        api.delete(Kind.NODE, "n0")
        api.delete(Kind.NODE, "n1")
        await asyncio.sleep(2)
        assert redis.history == {}


@simulated
async def test_a_stop_and_a_start_are_measured_at_every_stage() -> None:
    api, redis = small_fleet(2), FakeRedis()
    async with operator(api, redis) as fleet:
        await fleet.beating(15)
        seen = ObservationCounter()
        publish(api, "n0", no_llm(2, time=report_time()))
        await fleet.beating(3)
        assert seen() == dict.fromkeys([(stage, "withdrawal") for stage in STAGES], 1)
        seen = ObservationCounter()
        publish(api, "n0", llm(3, time=report_time()))
        await fleet.beating(3)
        assert seen() == dict.fromkeys([(stage, "gain") for stage in STAGES], 1)


@simulated
async def test_listings_restarts_resyncs_silence_and_drain_are_not_measured() -> None:
    seen = ObservationCounter()
    api, redis = small_fleet(2), FakeRedis()
    async with operator(api, redis) as fleet:
        await fleet.beating(15)
        api.feed = None
        publish(api, "n0", no_llm(2, time=report_time()))
        fleet.watch()
        await fleet.beating(310)
        assert set(api.members("llm")) == {"n1"}
        api.edit(Kind.NODE, "n1", {"spec": {"drain": True}})
        await fleet.beating(15)
        await asyncio.sleep(5 * H)
    async with operator(api, redis) as fleet:
        await fleet.beating(15)
    assert seen() == {}


@simulated
async def test_a_report_from_the_future_counts_as_unknown() -> None:
    api, redis = small_fleet(2), FakeRedis()
    async with operator(api, redis) as fleet:
        await fleet.beating(15)
        seen = ObservationCounter()
        publish(api, "n0", no_llm(2, time=timestamp(datetime.fromtimestamp(now() + 60, UTC))))
        await fleet.beating(3)
        known = {("plan", "withdrawal"): 1, ("redis", "withdrawal"): 1, ("slice", "withdrawal"): 1}
        assert seen() == known | {
            ("report", "unknown"): 1,
            ("total_redis", "unknown"): 1,
            ("total_slice", "unknown"): 1,
        }


@simulated
async def test_a_change_during_an_outage_of_redis_is_measured_when_it_is_back() -> None:
    api, redis = small_fleet(2), FakeRedis()
    async with operator(api, redis) as fleet:
        await fleet.beating(15)
        redis.fault = RetryableError("away")
        seen = ObservationCounter()
        publish(api, "n0", no_llm(2, time=report_time()))
        await fleet.beating(3)
        assert not any("redis" in stage for stage, _ in seen())
        redis.fault = None
        assert await until(lambda: ("total_redis", "withdrawal") in seen()) < 2
        assert seen()["redis", "withdrawal"] == 1
