"""The whole path on the real API server and the real Redis: a service stops on a node, the node leaves its pools.

Process → agent → NodeCapability → operator → NodePoolSlice, Redis members and Redis capability; and nothing else moves.
"""

import asyncio
from typing import Any

import pytest

from hotpool.lookup import Lookup
from localfleet.catalogue import service, translator
from localfleet.fleet import Fleet
from localfleet.process import wait_for

OWN_TYPE = "llm"
SERVICES = {"asr": "whisper", "nmt": "m2m100", "tts": "piper", "semantic": "repair", OWN_TYPE: "qwen"}


def pool(name: str, **requires: Any) -> dict[str, Any]:
    return {
        "apiVersion": "hotpool.dev/v1alpha1",
        "kind": "NodePool",
        "metadata": {"name": name},
        "spec": {"requires": requires},
    }


def redis_members(fleet: Fleet, name: str) -> dict[str, str]:
    async def ask() -> dict[str, str]:
        async with Lookup.from_url(fleet.redis_url, namespace=fleet.namespace) as lookup:
            found = await lookup.members(name)
        return {
            node: state
            for state, nodes in (("Ready", found.ready), ("Suspect", found.suspect), ("Draining", found.draining))
            for node in nodes
        }

    return asyncio.run(ask())


def redis_ready_types(fleet: Fleet, node: str) -> set[str]:
    async def ask() -> set[str]:
        async with Lookup.from_url(fleet.redis_url, namespace=fleet.namespace) as lookup:
            found = await lookup.capability(node)
        return {type_ for type_, state in found.types.items() if state.ready} if found else set()

    return asyncio.run(ask())


def everywhere(fleet: Fleet, name: str, expected: dict[str, str]) -> bool:
    return fleet.members(name) == expected and redis_members(fleet, name) == expected


@pytest.fixture
def running(fleet: Fleet) -> Fleet:
    """Two nodes that do everything, and a pool for each type."""
    fleet.apply(*(pool(type_, types=[{"type": type_}]) for type_ in SERVICES))
    fleet.apply(pool("zh-en", types=[{"type": "asr"}], languagePairs={"allOf": ["zh-en"], "semantic": True}))
    fleet.start_operator()
    for node in ("edge-1", "edge-2"):
        fleet.start_agent(node, [*translator(["zh", "en"]), service("qwen", OWN_TYPE)], debounce=0.2)
    fleet.wait_leading()
    both = {"edge-1": "Ready", "edge-2": "Ready"}
    for name in (*SERVICES, "zh-en"):
        wait_for(f"both nodes are in {name}", lambda name=name: everywhere(fleet, name, both), 60)  # type: ignore[misc]
    return fleet


def test_d3_stop_and_start_of_each_type_move_the_node_at_once_and_nothing_else(running: Fleet) -> None:
    both, one = {"edge-1": "Ready", "edge-2": "Ready"}, {"edge-2": "Ready"}
    for type_, id_ in SERVICES.items():
        untouched = {name: running.get("nodepoolslices", f"{name}-0") for name in SERVICES if name != type_}
        running.agent("edge-1", "stop", id_)
        wait_for(f"edge-1 left {type_}", lambda type_=type_: everywhere(running, type_, one))  # type: ignore[misc]
        wait_for("Redis capability", lambda type_=type_: type_ not in redis_ready_types(running, "edge-1"))  # type: ignore[misc]
        assert redis_ready_types(running, "edge-1") == set(SERVICES) - {type_}
        in_pair_pool = type_ == OWN_TYPE
        wait_for("pair pool", lambda expected=both if in_pair_pool else one: everywhere(running, "zh-en", expected))  # type: ignore[misc]
        running.agent("edge-1", "start", id_)
        wait_for(f"edge-1 is back in {type_}", lambda type_=type_: everywhere(running, type_, both))  # type: ignore[misc]
        wait_for("Redis capability", lambda: redis_ready_types(running, "edge-1") == set(SERVICES))
        wait_for("pair pool", lambda: everywhere(running, "zh-en", both))
        assert {name: running.get("nodepoolslices", f"{name}-0") for name in untouched} == untouched


def test_d9_killed_operator_loses_no_membership_and_writes_nothing_when_nothing_changed(running: Fleet) -> None:
    def stored() -> list[dict[str, Any]]:
        objects = [running.list(plural) for plural in ("nodepools", "nodepoolslices", "nodecapabilities")]
        return [item for group in objects for item in group]

    def settled() -> bool:
        return all(item["status"].get("members") == 2 for item in running.list("nodepools"))

    wait_for("statuses settled", settled)
    assert running.operator
    running.operator.kill()
    before = stored()
    operator = running.start_operator()
    running.wait_leading()
    assert stored() == before
    assert all(everywhere(running, name, {"edge-1": "Ready", "edge-2": "Ready"}) for name in (*SERVICES, "zh-en"))
    assert operator.stop() == 0


def test_c3_killed_agent_is_suspect_at_3_h_and_gone_at_4_h_and_back_with_its_next_heartbeat(fleet: Fleet) -> None:
    fleet.apply(pool("llm", types=[{"type": "llm"}]))
    fleet.start_operator()
    catalogue = [service("qwen", "llm")]
    agent = fleet.start_agent("edge-1", catalogue, interval=2, debounce=0.2)
    fleet.wait_leading()
    wait_for("in", lambda: everywhere(fleet, "llm", {"edge-1": "Ready"}), 30)
    agent.kill()
    wait_for("Suspect", lambda: everywhere(fleet, "llm", {"edge-1": "Suspect"}), 10)
    wait_for("gone", lambda: everywhere(fleet, "llm", {}), 10)
    suspect = fleet.get("nodecapabilities", "edge-1")
    assert suspect
    assert suspect["status"]["ready"] == "Unknown"
    fleet.start_agent("edge-1", catalogue, interval=2, debounce=0.2)
    wait_for("back", lambda: everywhere(fleet, "llm", {"edge-1": "Ready"}), 30)


def test_e1_flushed_redis_is_whole_again_by_itself(running: Fleet, redis_server: Any) -> None:
    redis_server.ask("FLUSHALL")
    both = {"edge-1": "Ready", "edge-2": "Ready"}
    for name in (*SERVICES, "zh-en"):
        wait_for(f"{name} again", lambda name=name: redis_members(running, name) == both, 15)  # type: ignore[misc]
    wait_for("capability", lambda: redis_ready_types(running, "edge-2") == set(SERVICES), 15)


def test_d10_edited_slice_and_garbage_in_redis_are_put_right(running: Fleet, redis_server: Any) -> None:
    patch = '{"members":[{"node":"stranger","state":"Ready","since":"2026-01-01T00:00:00Z"}]}'
    running.kubectl("patch", "nodepoolslice", "llm-0", "--type=merge", "-p", patch)
    both = {"edge-1": "Ready", "edge-2": "Ready"}
    wait_for("healed", lambda: everywhere(running, "llm", both))
    running.kubectl("delete", "nodepoolslice", "llm-0")
    wait_for("made again", lambda: everywhere(running, "llm", both))
    tag = f"{{hotpool:{running.namespace}}}"
    redis_server.ask("SET", f"{tag}:pool:llm:ready", "garbage")
    wait_for("garbage overwritten", lambda: b"zset" in redis_server.ask("TYPE", f"{tag}:pool:llm:ready"), 15)
    wait_for("whole", lambda: redis_members(running, "llm") == both, 15)


def test_d11_pool_and_capability_deleted_while_the_operator_is_down_are_put_right(running: Fleet) -> None:
    assert running.operator
    running.operator.kill()
    running.agents["edge-1"].kill()
    running.kubectl("delete", "nodecapability", "edge-1")
    running.kubectl("delete", "nodepool", "tts")
    running.start_operator()
    running.wait_leading()
    wait_for("edge-1 is out", lambda: everywhere(running, "llm", {"edge-2": "Ready"}))
    wait_for("tts is gone", lambda: everywhere(running, "tts", {}), 30)
