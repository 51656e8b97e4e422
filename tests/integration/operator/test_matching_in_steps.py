"""New pools and generators of a large fleet, whose nodes are matched in several steps (requirements D3, D5, D9).

One step matches one node here.
"""

import asyncio
from typing import Any

import pytest
from tests.support.builders import condition, generator_object, node_object, pool_object, requires, speech
from tests.support.llm_fleet import no_llm, publish, small_fleet
from tests.support.simulated_fleet import FakeApi, FakeRedis, Fleet, operator, simulated, until

from hotpool.core import match_index
from hotpool.core.model import Kind

NODES = 20
EVERY = {f"n{number}": "Ready" for number in range(NODES)}


@pytest.fixture(autouse=True)
def one_node_per_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(match_index, "_MATCHES_PER_STEP", 1)


async def matched(fleet: Fleet) -> None:
    """Wait until every node is matched, and what follows is written."""
    await asyncio.sleep(0)  # the event arrives
    assert not fleet.cache.matches.done
    await until(lambda: fleet.cache.matches.done)
    await asyncio.sleep(2)


@simulated
async def test_a_new_pool_is_written_with_all_its_members_at_once() -> None:
    api, redis = small_fleet(NODES), FakeRedis()
    async with operator(api, redis) as fleet:
        api.put(pool_object("new", requires=requires("llm")))
        await matched(fleet)
        assert api.members("new") == EVERY
        assert redis.pools["new"].ready == EVERY.keys()
        assert len(api.written(Kind.SLICE, "new-0")) == 1
        assert redis.writes_of("new") == ["replace_pool"]


@simulated
async def test_no_member_leaves_a_pool_whose_spec_changed_before_all_nodes_are_matched() -> None:
    api, redis = small_fleet(NODES), FakeRedis()
    async with operator(api, redis) as fleet:
        slices, documents = len(api.written(Kind.SLICE)), len(redis.writes_of("llm"))
        api.edit(Kind.POOL, "llm", {"spec": {"minMembers": 3}})
        await matched(fleet)
        assert len(api.written(Kind.SLICE)) == slices
        assert len(redis.writes_of("llm")) == documents
        assert api.conditions(Kind.POOL, "llm")["Ready"] == ("True", "EnoughMembers")


@simulated
async def test_a_stop_while_nodes_are_matched_counts() -> None:
    api, redis = small_fleet(NODES), FakeRedis()
    async with operator(api, redis) as fleet:
        api.edit(Kind.POOL, "llm", {"spec": {"minMembers": 3}})
        publish(api, "n0", no_llm(2))
        publish(api, "n19", no_llm(2))
        await matched(fleet)
        assert api.members("llm").keys() == EVERY.keys() - {"n0", "n19"}
        assert redis.pools["llm"].ready == EVERY.keys() - {"n0", "n19"}


@simulated
async def test_nodes_that_the_brake_retains_must_meet_the_changed_spec() -> None:
    api, live = small_fleet(NODES), [f"n{number}" for number in range(5)]
    async with operator(api) as fleet:
        await fleet.beating(15.0)
        await fleet.beating(90.0, *live)
        assert api.members("llm").keys() == EVERY.keys(), "the brake holds"
        api.edit(Kind.POOL, "llm", {"spec": {"excludeNodes": ["n19", "n4"]}})
        await matched(fleet)
        assert api.members("llm").keys() == EVERY.keys() - {"n19", "n4"}


def speaking_fleet() -> FakeApi:
    """Return nodes of which each speaks another language, and English."""
    api = FakeApi()
    for number, code in enumerate(("de", "fr", "it", "ja", "zh")):
        api.put(node_object(f"n{number}", speech("en", code), conditions=[condition()]))
    api.put(generator_object("g", rule={"languagePairs": {}}, graceSeconds=0))
    return api


def pools_of_status(body: dict[str, Any]) -> int:
    return int(body["status"]["pools"])


@simulated
async def test_a_generator_whose_spec_changed_is_planned_once_all_nodes_are_matched() -> None:
    api = speaking_fleet()
    async with operator(api) as fleet:
        await until(lambda: len(api.objects[Kind.POOL]) == 10)
        await asyncio.sleep(2)
        written = len(api.writes)
        api.edit(Kind.GENERATOR, "g", {"spec": {"graceSeconds": 1}})
        await until(lambda: fleet.cache.matches.done)
        assert len(api.writes) == written
        await asyncio.sleep(2)
        assert len(api.objects[Kind.POOL]) == 10
        assert pools_of_status(api.objects[Kind.GENERATOR]["g"]) == 10


@simulated
async def test_the_gate_opens_once_all_nodes_are_matched() -> None:
    fleet = Fleet(small_fleet(NODES))
    fleet.list_leases()
    for kind in (Kind.NODE, Kind.POOL):
        for body in list(fleet.api.objects[kind].values()):
            fleet.manager.on_object(kind, None, body)
    assert not fleet.cache.matches.done
    await fleet.manager.open_gate()
    assert fleet.cache.matches.done
    assert fleet.cache.pools["llm"].members == EVERY
