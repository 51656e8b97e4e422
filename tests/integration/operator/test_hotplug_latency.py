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


def stamp() -> str:
    return timestamp(datetime.fromtimestamp(now(), UTC))


def told(redis: FakeRedis, name: str) -> list[tuple[Any, ...]]:
    return [(t.before, t.after, t.gained, dict(t.lost)) for t in redis.history.get(name, [])]


def counts() -> dict[tuple[str, str], float]:
    """Stage and direction → observations so far."""
    found: dict[tuple[str, str], float] = {}
    for metric in REGISTRY.collect():
        for sample in metric.samples:
            if sample.name == "hotpool_hotplug_seconds_count":
                found[sample.labels["stage"], sample.labels["direction"]] = sample.value
            if sample.name == "hotpool_hotplug_unknown_total":
                found[sample.labels["stage"], "unknown"] = sample.value
    return found


class Observed:
    """What was observed since it was made."""

    def __init__(self) -> None:
        self._before = counts()

    def __call__(self) -> dict[tuple[str, str], float]:
        after = {key: value - self._before.get(key, 0) for key, value in counts().items()}
        return {key: value for key, value in after.items() if value}


EVERY = ("report", "plan", "redis", "slice", "total_redis", "total_slice")


@simulated
async def test_what_changed_about_a_node_is_in_redis_newest_first_also_while_it_is_offline() -> None:
    api, redis = small_fleet(1), FakeRedis()
    async with operator(api, redis) as fleet:
        await fleet.beating(15)
        assert told(redis, "n0") == []
        publish(api, "n0", no_llm(2))
        await fleet.beating(2)
        publish(api, "n0", llm(3))
        await fleet.beating(2)
        await asyncio.sleep(4 * H + 1)
        assert redis.nodes == {}
        fleet.beat()
        await asyncio.sleep(1)
        assert told(redis, "n0") == [
            ("Offline", "Live", (), {}),
            ("Suspect", "Offline", (), {}),
            ("Live", "Suspect", (), {}),
            (None, None, ("llm",), {}),
            (None, None, (), {"llm": "Stopped"}),
        ]
        assert set(redis.nodes) == {"n0"}


@simulated
async def test_an_unchanged_node_and_a_restart_add_nothing() -> None:
    api, redis = small_fleet(2), FakeRedis()
    async with operator(api, redis) as fleet:
        await fleet.beating(15)
        publish(api, "n0", no_llm(2))
        await fleet.beating(400)
        before = told(redis, "n0")
    async with operator(api, redis) as fleet:
        await fleet.beating(60)
    assert told(redis, "n0") == before
    assert len(before) == 1


@simulated
async def test_what_happened_while_redis_was_away_is_told_when_it_is_back_and_at_most_ten() -> None:
    api, redis = small_fleet(1), FakeRedis()
    async with operator(api, redis) as fleet:
        await fleet.beating(15)
        redis.fault = RetryableError("away")
        for turn in range(14):
            publish(api, "n0", llm(turn + 2) if turn % 2 else no_llm(turn + 2))
            await fleet.beating(2)
        redis.fault = None
        assert await until(lambda: bool(told(redis, "n0"))) < 10
        assert len(told(redis, "n0")) == 10
        assert told(redis, "n0")[0] == (None, None, ("llm",), {})


@simulated
async def test_a_node_that_is_deleted_leaves_no_history_also_when_it_was_offline() -> None:
    api, redis = small_fleet(2), FakeRedis()
    async with operator(api, redis) as fleet:
        await fleet.beating(15)
        await fleet.beating(5 * H, "n1")
        publish(api, "n1", no_llm(2))
        await fleet.beating(2, "n1")
        assert told(redis, "n0")
        assert told(redis, "n1")
        api.delete(Kind.NODE, "n0")
        api.delete(Kind.NODE, "n1")
        await asyncio.sleep(2)
        assert redis.history == {}


@simulated
async def test_a_stop_and_a_start_are_measured_at_every_stage() -> None:
    api, redis = small_fleet(2), FakeRedis()
    async with operator(api, redis) as fleet:
        await fleet.beating(15)
        seen = Observed()
        publish(api, "n0", no_llm(2, time=stamp()))
        await fleet.beating(3)
        assert seen() == dict.fromkeys([(stage, "withdrawal") for stage in EVERY], 1)
        seen = Observed()
        publish(api, "n0", llm(3, time=stamp()))
        await fleet.beating(3)
        assert seen() == dict.fromkeys([(stage, "gain") for stage in EVERY], 1)


@simulated
async def test_listings_restarts_audits_silence_and_drain_are_not_measured() -> None:
    seen = Observed()
    api, redis = small_fleet(2), FakeRedis()
    async with operator(api, redis) as fleet:
        await fleet.beating(15)
        api.feed = None
        publish(api, "n0", no_llm(2, time=stamp()))
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
async def test_a_clock_that_is_ahead_is_counted_as_unknown() -> None:
    api, redis = small_fleet(2), FakeRedis()
    async with operator(api, redis) as fleet:
        await fleet.beating(15)
        seen = Observed()
        publish(api, "n0", no_llm(2, time=timestamp(datetime.fromtimestamp(now() + 60, UTC))))
        await fleet.beating(3)
        known = {("plan", "withdrawal"): 1, ("redis", "withdrawal"): 1, ("slice", "withdrawal"): 1}
        assert seen() == known | {
            ("report", "unknown"): 1,
            ("total_redis", "unknown"): 1,
            ("total_slice", "unknown"): 1,
        }


@simulated
async def test_redis_that_is_away_is_unknown_and_a_standby_leaves_nothing_to_measure() -> None:
    api, redis = small_fleet(2), FakeRedis()
    async with operator(api, redis) as fleet:
        await fleet.beating(15)
        redis.fault = RetryableError("away")
        publish(api, "n0", no_llm(2, time=stamp()))
        await fleet.beating(3)
        seen = Observed()
        publish(api, "n1", no_llm(2, time=stamp()))
        await fleet.beating(3)
        assert seen()["redis", "unknown"] == 1
        assert ("redis", "withdrawal") not in seen()
