"""Metric and Event of ejected services, over a fake Redis in simulated time (E8)."""

from __future__ import annotations

import pytest
from tests.support.builders import pool_object, requires
from tests.support.llm_fleet import small_fleet
from tests.support.simulated_fleet import FakeRedis, operator, simulated

from hotpool.core.model import Kind
from hotpool.observability.metrics import REGISTRY
from hotpool.projection.failures import Ejection

pytestmark = pytest.mark.timeout(60)

TIMES = {"since": 1000.0, "until": 1030.0}


def ejection(node: str, *sources: str, service: str | None = "s", kind: str | None = "llm") -> Ejection:
    return Ejection(node, service, kind, "llm", sources, **TIMES)


def shown(pool: str) -> float | None:
    return REGISTRY.get_sample_value("hotpool_pool_ejected_services", {"pool": pool})


@simulated
async def test_ejected_services_are_counted_by_pool_and_cause_one_event_of_the_pool() -> None:
    api, redis = small_fleet(3), FakeRedis()
    api.put(pool_object("other", requires=requires("asr")))
    async with operator(api, redis) as fleet:
        await fleet.beating(6)
        assert shown("llm") is None
        redis.failing = (ejection("n0", "one", "two"), ejection("n1", "three"), ejection("gone", "three"))
        await fleet.beating(6)
        assert shown("llm") == 2
        assert shown("other") is None
        redis.failing = (ejection("n0", "one", "two"), ejection("n2", "one", service=None, kind=None))
        await fleet.beating(6)
        assert shown("llm") == 2
        redis.failing = ()
        await fleet.beating(6)
        assert shown("llm") == 0
        notes = [note for reason, note in api.event_notes("llm") if reason == "ServicesEjected"]
        assert notes == [
            "3 services [gone/s, n0/s, n1/s] ejected by 3 sources: picked last",
            "1 service [n2] ejected by 1 source: picked last",
        ]
        members = redis.pools["llm"].ready
        assert members == {"n0", "n1", "n2"}  # no membership changes
        api.delete(Kind.POOL, "llm")
        await fleet.beating(12)
        assert shown("llm") is None


@simulated
async def test_an_operator_without_rights_on_failures_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    api, redis = small_fleet(2), FakeRedis(failures_denied=("HGET {hotpool:fleet}:load:failures",))
    async with operator(api, redis) as fleet:
        await fleet.beating(12)
        assert redis.pools["llm"].ready == {"n0", "n1"}
        assert redis.complete
        assert REGISTRY.get_sample_value("hotpool_redis_failures_enabled") == 0
        assert capsys.readouterr().out.count("load:failures") == 1
        redis.failures_denied = ()
        await fleet.beating(6)
        assert REGISTRY.get_sample_value("hotpool_redis_failures_enabled") == 1
