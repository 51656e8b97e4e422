"""Metrics of pools, generators, nodes and services, of a leader in simulated time (F8)."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from prometheus_client import generate_latest
from tests.support.builders import (
    generator_object,
    pool_object,
    report,
    requires,
    service,
)
from tests.support.llm_fleet import publish, small_fleet
from tests.support.simulated_fleet import FakeApi, Fleet, operator, simulated

from hotpool.clock import Clock
from hotpool.controllers import fleet_metrics
from hotpool.controllers.fleet_metrics import FleetMetrics
from hotpool.core.model import Kind
from hotpool.observability.metrics import REGISTRY

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.timeout(60)
SERIES = ("pool_members", "pool_min_members", "pool_ready", "pool_condition", "generator_not_admitted", "node_states")
FAILED = {"state": "Failed", "since": "2026-12-01T00:00:00Z", "lastError": "exit code 1"}


def shown(metric: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(f"hotpool_{metric}", labels)


def series(metric: str) -> int:
    """Return the number of series of a metric."""
    return sum(len(family.samples) for family in REGISTRY.collect() if family.name == f"hotpool_{metric}")


@asynccontextmanager
async def measured(api: FakeApi, *, by_name: bool = True) -> AsyncIterator[Fleet]:
    """Run an operator that leads and shows its fleet, as `hotpool.app` does."""
    loop = asyncio.get_running_loop()
    async with operator(api, kube_nodes=True) as fleet:
        showing = asyncio.create_task(FleetMetrics(fleet.cache, Clock(loop.time, loop.time), by_name=by_name).run())
        try:
            yield fleet
        finally:
            showing.cancel()
            await asyncio.gather(showing, return_exceptions=True)


@simulated
async def test_a_pool_is_shown_with_its_members_and_its_minimum_for_as_long_as_it_exists() -> None:
    api = small_fleet(3, minMembers=3)
    async with measured(api) as fleet:
        await fleet.beating(20)
        assert [shown("pool_members", pool="llm", state=state) for state in ("Ready", "Suspect", "Draining")] == [
            3,
            0,
            0,
        ]
        assert (shown("pool_min_members", pool="llm"), shown("pool_ready", pool="llm")) == (3, 1)
        api.edit(Kind.NODE, "n0", {"spec": {"drain": True}})
        await fleet.beating(20)
        assert [shown("pool_members", pool="llm", state=state) for state in ("Ready", "Draining")] == [2, 1]
        assert shown("pool_ready", pool="llm") == 0
        api.edit(Kind.POOL, "llm", {"spec": {"mode": "DryRun"}})
        await fleet.beating(20)
        assert shown("pool_ready", pool="llm") is None, "a pool that serves no work is not short of members"
        api.delete(Kind.POOL, "llm")
        await fleet.beating(20)
        assert [series(name) for name in ("pool_members", "pool_min_members", "pool_ready")] == [0, 0, 0]


@simulated
async def test_conditions_of_pools_and_keys_without_a_pool_are_shown_until_they_end() -> None:
    api = small_fleet(2)
    api.put(pool_object("cat", requires=requires("lm")))
    rule = {"attributeValues": {"type": "llm", "key": "model"}}
    api.put(generator_object("models", rule=rule, minNodes=2))
    publish(api, "n0", report(service("q", "llm", model="x"), sequence=2))
    async with measured(api) as fleet:
        await fleet.beating(40)
        assert shown("pool_condition", pool="cat", condition="UnknownRequirement") == 1
        assert shown("generator_not_admitted", generator="models") == 1
        assert shown("generator_condition", generator="models", condition="NotAdmitted") == 1
        publish(api, "n1", report(service("q", "llm", model="x"), service("l", "lm"), sequence=2))
        await fleet.beating(40)
        assert (series("pool_condition"), series("generator_condition")) == (0, 0)
        assert shown("generator_not_admitted", generator="models") == 0


@simulated
async def test_a_pool_whose_brake_holds_shows_mass_silence_and_its_nodes_are_offline() -> None:
    async with measured(small_fleet(3)) as fleet:
        await fleet.beating(20)
        assert shown("node_states", state="Live") == 3
        await asyncio.sleep(80)
        assert shown("pool_condition", pool="llm", condition="MassSilence") == 1
        assert (shown("node_states", state="Offline"), shown("node_states", state="Live")) == (3, None)


@simulated
async def test_failing_services_and_addresses_that_are_not_used_are_counted() -> None:
    api, before = small_fleet(3), shown("service_incidents_total", reason="ServiceFailed") or 0
    async with measured(api) as fleet:
        await fleet.beating(20)
        assert (series("failing_services"), series("node_problems")) == (0, 0)
        publish(api, "n0", report(service("q", "llm", **FAILED), sequence=2))
        endpoint = {"addresses": ["169.254.1.1"], "port": 80, "appProtocol": None}
        publish(api, "n1", report(service("q", "llm", endpoint=endpoint), sequence=2))
        await fleet.beating(20)
        assert shown("failing_services", state="Failed") == 1
        assert shown("node_problems", condition="AddressNotAllowed") == 1
        assert shown("service_incidents_total", reason="ServiceFailed") == before + 1
        await asyncio.sleep(100)
        assert series("failing_services") == 0, "the last report of a silent node is no evidence"


@simulated
async def test_pools_with_a_problem_are_shown_before_others_and_the_rest_is_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fleet_metrics, "MAX_SHOWN", 2)
    api = small_fleet(1)
    for name in ("a", "b", "z"):
        api.put(pool_object(name, requires=requires("llm"), minMembers=2 if name == "z" else 1))
    async with measured(api) as fleet:
        await fleet.beating(20)
        assert [shown("pool_ready", pool=name) for name in ("a", "b", "llm", "z")] == [1, None, None, 0]
        assert shown("metrics_not_shown", kind="pool") == 2


@simulated
async def test_metrics_by_name_can_be_switched_off() -> None:
    async with measured(small_fleet(1), by_name=False) as fleet:
        await fleet.beating(20)
        assert [series(name) for name in SERIES] == [0, 0, 0, 0, 0, 1]


@simulated
async def test_only_a_leader_shows_its_fleet() -> None:
    async with measured(small_fleet(1)) as fleet:
        await fleet.beating(20)
        assert series("pool_ready") == 1
    assert [series(name) for name in SERIES] == [0] * len(SERIES)
    assert b"hotpool_pool_ready{" not in generate_latest(REGISTRY)
