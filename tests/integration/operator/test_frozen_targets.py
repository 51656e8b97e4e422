"""A slow, full, frozen or absent target delays no other, in simulated time (K7.2).

On real parts: tests/cluster/operator/test_frozen_targets.py.
"""

from collections.abc import Callable

import pytest
from tests.support.builders import pool_object, requires
from tests.support.llm_fleet import no_llm, publish, small_fleet
from tests.support.simulated_fleet import FakeApi, FakeRedis, Fleet, operator, refusing, simulated, unreachable, until

from hotpool.controllers.context import ROUND_SECONDS
from hotpool.core.model import Kind
from hotpool.errors import RetryableError
from hotpool.kube.writer import WRITE_TIMEOUT
from hotpool.projection.redis_errors import RedisFullError
from hotpool.projection.writer import REQUEST_SECONDS

pytestmark = pytest.mark.timeout(60)

WRITES = ("create", "patch", "status", "delete")
AT_ONCE = 0.05
"""More than the steps of simulated time in which a test looks."""
OUTAGE_SECONDS = 120.0
"""Long enough for the longest back-off."""
CATCH_UP_SECONDS = 2.5
"""One hanging attempt to connect or write may be under way, and the next follows at most a second later."""


def freeze_redis(redis: FakeRedis) -> None:
    redis.delay, redis.fault = REQUEST_SECONDS, RetryableError("Redis did not answer in time")


def slow_down_redis(redis: FakeRedis) -> None:
    redis.delay = REQUEST_SECONDS - 0.1


def fill_redis(redis: FakeRedis) -> None:
    redis.refusals = {"replace_pool": RedisFullError("full"), "replace_node": RedisFullError("full")}


def cut_redis(redis: FakeRedis) -> None:
    redis.fault = RetryableError("connection refused")


def freeze_writes(api: FakeApi) -> None:
    api.delay = WRITE_TIMEOUT
    api.fault = lambda verb, _kind, _name: TimeoutError() if verb in WRITES else None


def slow_down_writes(api: FakeApi) -> None:
    api.delay = WRITE_TIMEOUT - 0.1


def refuse_writes(api: FakeApi) -> None:
    faults = [refusing(507, verb=verb) for verb in WRITES]
    api.fault = lambda *request: next((error for fault in faults if (error := fault(*request))), None)


def cut_api(api: FakeApi) -> None:
    """Let every request fail; watches go on."""
    api.fault = unreachable


@simulated
async def test_the_first_write_after_a_freeze_brings_all_others_that_wait_for_their_next_attempt() -> None:
    api = small_fleet(2)
    for number in range(20):
        api.put(pool_object(f"p{number}", requires=requires("llm")))
    async with operator(api) as fleet:
        await fleet.beating(10)
        freeze_writes(api)
        for number in range(20):
            api.edit(Kind.POOL, f"p{number}", {"spec": {"excludeNodes": ["n0"]}})
            await fleet.beating(5)
        api.delay, api.fault = 0.0, None
        await until(lambda: any(set(api.members(f"p{number}")) == {"n1"} for number in range(20)))
        rest = await until(lambda: all(set(api.members(f"p{number}")) == {"n1"} for number in range(20)))
        assert rest < WRITE_TIMEOUT + AT_ONCE  # of the writes that hang at that moment


async def stop_services(fleet: Fleet, first: int, members: Callable[[], set[str]]) -> list[float]:
    """Stop the services of five nodes. Return for each the seconds until the node is no member."""
    times = []
    for number in range(first, first + 5):
        node = f"n{number}"
        publish(fleet.api, node, no_llm(2))
        times.append(await until(lambda node=node: node not in members()))  # type: ignore[misc]
        await fleet.beating(ROUND_SECONDS)  # one round of slices a second
    return times


@pytest.mark.parametrize("fault", [freeze_redis, slow_down_redis, fill_redis, cut_redis])
@simulated
async def test_stops_reach_the_slices_at_once_whatever_redis_does_and_redis_catches_up(
    fault: Callable[[FakeRedis], None],
) -> None:
    api, redis = small_fleet(20), FakeRedis()
    async with operator(api, redis) as fleet:
        await fleet.beating(10)
        assert max(await stop_services(fleet, 0, lambda: set(api.members("llm")))) < AT_ONCE
        fault(redis)
        assert max(await stop_services(fleet, 5, lambda: set(api.members("llm")))) < AT_ONCE
        await fleet.beating(OUTAGE_SECONDS)
        redis.delay, redis.fault, redis.refusals = 0.0, None, {}
        left = set(api.members("llm"))
        assert await until(lambda: redis.pools["llm"].ready == left) < CATCH_UP_SECONDS
        await until(lambda: not fleet.redis_error)


@pytest.mark.parametrize("fault", [freeze_writes, slow_down_writes, refuse_writes, cut_api])
@simulated
async def test_stops_reach_redis_at_once_whatever_kubernetes_does_to_writes_and_slices_catch_up(
    fault: Callable[[FakeApi], None],
) -> None:
    api, redis = small_fleet(20), FakeRedis()
    async with operator(api, redis) as fleet:
        await fleet.beating(10)
        assert max(await stop_services(fleet, 0, lambda: set(redis.pools["llm"].ready))) < AT_ONCE
        fault(api)
        assert max(await stop_services(fleet, 5, lambda: set(redis.pools["llm"].ready))) < AT_ONCE
        await fleet.beating(OUTAGE_SECONDS)
        api.delay, api.fault = 0.0, None
        left = set(redis.pools["llm"].ready)
        await until(lambda: set(api.members("llm")) == left, catch_up_seconds(fault))
        await until(lambda: not any(fleet.manager.target_errors().values()))


def catch_up_seconds(fault: Callable[[FakeApi], None]) -> float:
    """Return the seconds within which slices catch up: a write that fails is repeated with growing pauses."""
    return 31.0 if fault in {refuse_writes, freeze_writes} else CATCH_UP_SECONDS + ROUND_SECONDS
