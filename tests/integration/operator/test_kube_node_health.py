"""v1 Nodes that are not ready or shut down, from their watch to slices, Redis, conditions, Events and `why` (C8)."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tests.support.builders import condition, kube_node_object, node_object, pool_object, report, requires, service
from tests.support.read_api import read_api
from tests.support.simulated_fleet import FakeApi, FakeRedis, Fleet, operator, simulated, until

from hotpool.api.meta import ELECTION_LEASE, KUBE_NODES_ANNOTATION
from hotpool.cli.program import app
from hotpool.core.kube_node_health import SHUTDOWN_MESSAGE, SHUTDOWN_TAINTS
from hotpool.core.model import Kind
from hotpool.observability.metrics import TRANSITIONS

Json = dict[str, Any]
OFF = f"[container runtime is down, {SHUTDOWN_MESSAGE}]"


def fleet_of(count: int, **more: Any) -> FakeApi:
    """Return an API server with v1 Nodes and agents n0, n1, … that serve llm, and a pool of llm."""
    api = FakeApi()
    for number in range(count):
        api.put(kube_node_object(f"n{number}", **more))
        api.put(node_object(f"n{number}", report(service("q", "llm"))))
    api.put(pool_object("llm", requires=requires("llm")))
    return api


def set_ready(api: FakeApi, name: str, ready: str | None, message: str = "") -> None:
    """Write the condition Ready of a v1 Node."""
    changed = kube_node_object(name, ready=ready, message=message)
    api.edit(Kind.KUBE_NODE, name, {"status": changed["status"]})


def in_redis(redis: FakeRedis) -> dict[str, str]:
    document = redis.pools["llm"]
    states = {"Ready": document.ready, "Suspect": document.suspect, "Draining": document.draining}
    return {node: state for state, nodes in states.items() for node in nodes}


def shown(api: FakeApi, redis: FakeRedis, expected: dict[str, str]) -> bool:
    return api.members("llm") == in_redis(redis) == expected


@simulated
async def test_not_ready_is_published_at_once_and_so_is_its_end() -> None:
    api, redis = fleet_of(3), FakeRedis()
    async with operator(api, redis, kube_nodes=True) as fleet:
        await fleet.beating(2)
        before = TRANSITIONS.labels("NodeNotReady")._value.get()  # noqa: SLF001 - the client has no reader.
        set_ready(api, "n0", "False", "container runtime is down")
        assert await until(lambda: shown(api, redis, {"n0": "Suspect", "n1": "Ready", "n2": "Ready"})) < 0.1
        assert await until(lambda: api.conditions(Kind.NODE, "n0")["Ready"] == ("False", "NodeNotReady")) < 0.1
        assert "n0" in redis.nodes
        await fleet.beating(30)
        assert shown(api, redis, {"n0": "Suspect", "n1": "Ready", "n2": "Ready"})
        assert TRANSITIONS.labels("NodeNotReady")._value.get() == before + 1  # noqa: SLF001 - as above.
        notes = [note for reason, note in api.event_notes("n0") if reason == "NodeNotReady"]
        assert notes == ["the Node is not ready (Kubelet: container runtime is down): offered last; was Live"]
        set_ready(api, "n0", "True")
        assert await until(lambda: shown(api, redis, {"n0": "Ready", "n1": "Ready", "n2": "Ready"})) < 0.1


@simulated
async def test_unknown_counts_at_once_when_the_agent_was_silent_before() -> None:
    api, redis = fleet_of(2), FakeRedis()
    async with operator(api, redis, kube_nodes=True) as fleet:
        await fleet.beating(31)
        await fleet.beating(29, "n1")
        assert shown(api, redis, {"n0": "Ready", "n1": "Ready"})
        set_ready(api, "n0", "Unknown")
        set_ready(api, "n1", "Unknown")
        assert await until(lambda: shown(api, redis, {"n0": "Suspect", "n1": "Ready"})) < 0.1
        fleet.beat()
        assert await until(lambda: shown(api, redis, {"n0": "Ready", "n1": "Ready"})) < 1.1


@pytest.mark.parametrize("sign", [OFF, *SHUTDOWN_TAINTS])
def test_a_shutdown_takes_a_node_out_of_slices_and_redis_at_once(sign: str) -> None:
    @simulated
    async def course() -> None:
        api, redis = fleet_of(2), FakeRedis()
        async with operator(api, redis, kube_nodes=True) as fleet:
            await fleet.beating(2)
            if sign == OFF:
                set_ready(api, "n0", "False", OFF)
            else:
                api.edit(Kind.KUBE_NODE, "n0", {"spec": {"taints": [{"key": sign, "effect": "NoExecute"}]}})
            assert await until(lambda: shown(api, redis, {"n1": "Ready"}) and "n0" not in redis.nodes) < 0.1
            await fleet.beating(60)
            assert shown(api, redis, {"n1": "Ready"})
            reason = "NodeShutdown" if sign == OFF else "NodeOutOfService"
            assert api.conditions(Kind.NODE, "n0")["Ready"] == ("False", reason)
            (event,) = [body for _, body in api.events if body["reason"] == reason]
            assert event["type"] == "Normal"
            set_ready(api, "n0", "True")
            api.edit(Kind.KUBE_NODE, "n0", {"spec": {"taints": None}})
            assert await until(lambda: shown(api, redis, {"n0": "Ready", "n1": "Ready"}) and "n0" in redis.nodes) < 1.1

    course()


@simulated
async def test_a_restart_in_any_of_these_states_writes_nothing() -> None:
    api = fleet_of(6)
    async with operator(api, kube_nodes=True) as fleet:
        await fleet.beating(31)
        set_ready(api, "n0", "False")
        set_ready(api, "n1", "Unknown")
        set_ready(api, "n2", "False", OFF)
        await fleet.beating(30, "n0", "n3", "n4", "n5")
        set_ready(api, "n2", "Unknown")
        await fleet.beating(5, "n0", "n3", "n4", "n5")
    states = {"n0": "Suspect", "n1": "Suspect", "n3": "Ready", "n4": "Ready", "n5": "Ready"}
    assert api.members("llm") == states
    writes = len(api.writes)
    for _ in range(2):
        async with operator(api, kube_nodes=True) as fleet:
            await fleet.beating(20, "n0", "n3", "n4", "n5")
            assert (api.members("llm"), api.writes[writes:]) == (states, [])


@simulated
async def test_a_standby_that_takes_over_writes_nothing() -> None:
    api = fleet_of(4)
    standby = Fleet(api, kube_nodes=True)
    async with operator(api, kube_nodes=True) as fleet:
        await fleet.beating(31)
        set_ready(api, "n1", "Unknown")
        await fleet.beating(25, "n0", "n2", "n3")
        standby.list_leases()
        await standby.manager.open_gate()
        set_ready(api, "n0", "False")
        await fleet.beating(5, "n0", "n2", "n3")
    states = {"n0": "Suspect", "n1": "Suspect", "n2": "Ready", "n3": "Ready"}
    assert api.members("llm") == states
    writes = len(api.writes)
    standby.watch()
    await standby.manager.compare()
    await standby.lead()
    await standby.beating(12, "n0", "n2", "n3")
    assert (api.members("llm"), api.writes[writes:]) == (states, [])
    await standby.stop()


@simulated
async def test_flapping_costs_one_round_a_second_and_ends_in_the_last_state() -> None:
    api, redis = fleet_of(2), FakeRedis()
    async with operator(api, redis, kube_nodes=True) as fleet:
        await fleet.beating(2)
        writes = len(api.written(Kind.SLICE))
        for flip in range(50):
            set_ready(api, "n0", ("False", "True")[flip % 2])
            await fleet.beating(0.1)
        set_ready(api, "n0", "False")
        assert await until(lambda: shown(api, redis, {"n0": "Suspect", "n1": "Ready"})) <= 1.1
        assert len(api.written(Kind.SLICE)) - writes <= 7


@simulated
async def test_a_zone_that_is_not_ready_stays_as_suspect_without_the_brake() -> None:
    api, redis = fleet_of(120), FakeRedis()
    zone = [f"n{number}" for number in range(80)]
    wanted = {f"n{number}": "Suspect" if number < 80 else "Ready" for number in range(120)}
    async with operator(api, redis, kube_nodes=True) as fleet:
        await fleet.beating(2)
        events = len(api.events)
        for name in zone:
            set_ready(api, name, "False")
        assert await until(lambda: shown(api, redis, wanted)) < 1.5
        await fleet.beating(120)
        assert shown(api, redis, wanted)
        assert "MassSilence" not in api.conditions(Kind.POOL, "llm")
        of_pool = [body for _, body in api.events[events:] if body["involvedObject"]["name"] == "llm"]
        assert len(of_pool) <= 2


async def test_why_names_the_state_of_the_node_also_as_json(tmp_path: Path) -> None:
    lease = {"metadata": {"name": ELECTION_LEASE, "annotations": {KUBE_NODES_ANNOTATION: "true"}}, "kind": "Lease"}
    async with read_api() as api:
        api.put(lease, pool_object("llm", requires=requires("llm")))
        api.put(kube_node_object("n0", ready="False", message="disk is gone"), kube_node_object("n1", ready="Unknown"))
        api.put(kube_node_object("n2", taints=[SHUTDOWN_TAINTS[0]]))
        for name, reason in (("n0", "NodeNotReady"), ("n1", "NodeUnreachable"), ("n2", "NodeOutOfService")):
            conditions = [condition("Ready", "False", reason)]
            api.put(node_object(name, report(service("q", "llm")), conditions=conditions))
        options = ("--kubeconfig", str(api.kubeconfig(tmp_path)))

        def why(*words: str) -> Any:
            return CliRunner(env={"COLUMNS": "200"}).invoke(app, ["why", *words, *options])

        found = [json.loads((await asyncio.to_thread(why, n, "llm", "-o", "json")).stdout) for n in ("n0", "n1", "n2")]
        assert [item["verdict"]["state"] for item in found] == ["Suspect", "Suspect", None]
        assert [item["remarks"][0]["reason"] for item in found[:2]] == ["NodeNotReady", "NodeUnreachable"]
        assert found[2]["verdict"]["criterion"] == "NodeShutdown"
        (decided,) = [item for item in found[2]["requirements"] if item["decides"]]
        assert decided["observed"] == f"taint {SHUTDOWN_TAINTS[0]}"
        text = (await asyncio.to_thread(why, "n0", "llm")).stdout
        assert "The Node is not ready (Kubelet: disk is gone): offered last" in text
