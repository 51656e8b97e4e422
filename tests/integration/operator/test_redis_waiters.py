"""Waiting picks by pool, and an operator that may not wake them (E10)."""

from __future__ import annotations

import pytest
from tests.support.llm_fleet import small_fleet
from tests.support.simulated_fleet import FakeRedis, operator, simulated

from hotpool.core.model import Kind
from hotpool.observability.metrics import REGISTRY

pytestmark = pytest.mark.timeout(60)


def shown(pool: str) -> float | None:
    return REGISTRY.get_sample_value("hotpool_pool_waiters", {"pool": pool})


@simulated
async def test_waiting_picks_are_counted_by_pool() -> None:
    """The names come from dispatchers: those of no pool are not shown."""
    api, redis = small_fleet(2), FakeRedis()
    async with operator(api, redis) as fleet:
        await fleet.beating(12)
        assert shown("llm") is None
        redis.waiting = {"llm": 3, "missing": 2}
        await fleet.beating(6)
        assert (shown("llm"), shown("missing")) == (3, None)
        redis.waiting = {}
        await fleet.beating(6)
        assert shown("llm") == 0
        api.delete(Kind.POOL, "llm")
        await fleet.beating(12)
        assert shown("llm") is None


@simulated
async def test_an_operator_without_the_right_to_wake_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    api, redis = small_fleet(2), FakeRedis(waiting_denied=("XADD {hotpool:fleet}:load:wakeups",))
    async with operator(api, redis) as fleet:
        await fleet.beating(12)
        assert redis.pools["llm"].ready == {"n0", "n1"}
        assert REGISTRY.get_sample_value("hotpool_redis_waiting_enabled") == 0
        assert capsys.readouterr().out.count("load:wakeups") == 1
        redis.waiting_denied = ()
        await fleet.beating(6)
        assert REGISTRY.get_sample_value("hotpool_redis_waiting_enabled") == 1
