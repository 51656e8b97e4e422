"""Metrics of the use of pools, over a fake Redis in simulated time (E9)."""

from __future__ import annotations

import pytest
from tests.support.builders import report, service
from tests.support.llm_fleet import publish, small_fleet
from tests.support.simulated_fleet import FakeApi, FakeRedis, operator, simulated

from hotpool.core.model import Kind
from hotpool.observability.metrics import REGISTRY
from hotpool.projection.use import Use

pytestmark = pytest.mark.timeout(60)


def slots() -> tuple[float | None, float | None]:
    """Return the slots in use and in total that the metrics show of the pool."""
    labels = {"pool": "llm", "type": "llm"}
    return (
        REGISTRY.get_sample_value("hotpool_pool_slots_in_use", labels),
        REGISTRY.get_sample_value("hotpool_pool_slots", labels),
    )


def limit_both(api: FakeApi) -> None:
    """Give the service of both nodes a limit of 4."""
    for name in ("n0", "n1"):
        publish(api, name, report(service("q", "llm", maxConcurrent=4), sequence=2))


def refused(pool: str = "llm") -> float | None:
    labels = {"pool": pool, "reason": "Full"}
    return REGISTRY.get_sample_value("hotpool_pool_refused_reservations_total", labels)


@simulated
async def test_slots_and_refusals_are_shown_by_pool_for_as_long_as_it_exists() -> None:
    api, redis = small_fleet(2), FakeRedis()
    async with operator(api, redis) as fleet:
        await fleet.beating(6)
        assert (slots(), refused()) == ((None, None), None)
        limit_both(api)
        await fleet.beating(6)
        assert (slots(), refused()) == ((0, 8), 0), "the counter begins before the first refusal"
        redis.use = Use({"n0": {"q": 2}, "n1": {"q": 4}}, {("llm", "Full"): 3, ("gone", "Full"): 1})
        await fleet.beating(6)
        assert (slots(), refused(), refused("gone")) == ((6, 8), 3, None)
        redis.use = Use({}, {("llm", "Full"): 2})
        await fleet.beating(12)
        assert (slots(), refused()) == ((0, 8), 5)
        api.delete(Kind.POOL, "llm")
        await fleet.beating(12)
        assert (slots(), refused()) == ((None, None), None)


@simulated
async def test_a_former_leader_shows_no_use_of_pools() -> None:
    api, redis = small_fleet(2), FakeRedis(use=Use({"n0": {"q": 2}}, {("llm", "Full"): 1}))
    async with operator(api, redis) as fleet:
        limit_both(api)
        await fleet.beating(12)
        assert (slots(), refused()) == ((2, 8), 1)
    assert (slots(), refused()) == ((None, None), None), "the next leader shows it"


@simulated
async def test_an_operator_without_rights_on_slots_names_them_and_shows_none(
    capsys: pytest.CaptureFixture[str],
) -> None:
    api, redis = small_fleet(2), FakeRedis(slots_denied=("HSCAN {hotpool:fleet}:load:slots",))
    redis.use = Use({"n0": {"q": 2}})
    async with operator(api, redis) as fleet:
        limit_both(api)
        await fleet.beating(12)
        assert (slots()[0], redis.complete) == (None, True)
        assert REGISTRY.get_sample_value("hotpool_redis_slots_enabled") == 0
        assert capsys.readouterr().out.count("load:slots") == 1
        redis.slots_denied = ()
        await fleet.beating(6)
        assert REGISTRY.get_sample_value("hotpool_redis_slots_enabled") == 1
        assert slots() == (2, 8)
