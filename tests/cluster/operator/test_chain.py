"""The whole path on a real API server and a real Redis: a service stops on a node, and the node leaves its pools.

Process → agent → NodeCapability → operator → NodePoolSlice, Redis members and Redis capability, without other changes.

Requirements C3, D3, D6, D10, D11.
"""

import time
from datetime import datetime
from typing import Any

import pytest
import redis
from tests.support.fleet_objects import BOTH, pool, published

from localfleet.catalogue import service, translator
from localfleet.fleet import Fleet
from localfleet.process import wait_for

OWN_TYPE = "llm"
SERVICES = {"asr": "whisper", "nmt": "m2m100", "tts": "piper", "semantic": "repair", OWN_TYPE: "qwen"}


def last_heartbeat(fleet: Fleet, node: str) -> float:
    """Return the time of the last renewal of the node's Lease, in seconds of this machine's clock, or 0."""
    selector = f"metadata.name=hotpool-node-{node}"
    found: Any = fleet.leases.list_namespaced_lease(fleet.namespace, field_selector=selector)
    renewed = [lease.spec.renew_time for lease in found.items if lease.spec.renew_time]
    return max(map(datetime.timestamp, renewed), default=0.0)


@pytest.fixture
def running(fleet: Fleet) -> Fleet:
    """Two nodes with a service of each type, and a pool for each type."""
    fleet.apply(*(pool(type_, types=[{"type": type_}]) for type_ in SERVICES))
    fleet.apply(pool("zh-en", types=[{"type": "asr"}], languagePairs={"allOf": ["zh-en"], "semantic": True}))
    fleet.start_operator()
    for node in ("edge-1", "edge-2"):
        fleet.start_agent(node, [*translator(["zh", "en"]), service("qwen", OWN_TYPE)], debounce=0.2)
    fleet.wait_leading()
    for name in (*SERVICES, "zh-en"):
        wait_for(f"both nodes are in {name}", lambda name=name: published(fleet, name, BOTH), 60)  # type: ignore[misc]
    return fleet


def test_stop_and_start_of_each_type_change_its_pools_at_once_and_no_others(running: Fleet) -> None:
    one = {"edge-2": "Ready"}
    for type_, id_ in SERVICES.items():
        untouched = {name: running.get("nodepoolslices", f"{name}-0") for name in SERVICES if name != type_}
        running.agent("edge-1", "stop", id_)
        wait_for(f"edge-1 left {type_}", lambda type_=type_: published(running, type_, one))  # type: ignore[misc]
        wait_for("Redis capability", lambda type_=type_: type_ not in running.types_in_redis("edge-1"))  # type: ignore[misc]
        assert running.types_in_redis("edge-1") == set(SERVICES) - {type_}
        in_pair_pool = type_ == OWN_TYPE
        wait_for("pair pool", lambda expected=BOTH if in_pair_pool else one: published(running, "zh-en", expected))  # type: ignore[misc]
        running.agent("edge-1", "start", id_)
        wait_for(f"edge-1 is back in {type_}", lambda type_=type_: published(running, type_, BOTH))  # type: ignore[misc]
        wait_for("Redis capability", lambda: running.types_in_redis("edge-1") == set(SERVICES))
        wait_for("pair pool", lambda: published(running, "zh-en", BOTH))
        assert {name: running.get("nodepoolslices", f"{name}-0") for name in untouched} == untouched


def test_a_killed_agent_is_suspect_after_3_intervals_and_out_after_4_and_back_with_its_next_heartbeat(
    fleet: Fleet,
) -> None:
    fleet.apply(pool("llm", types=[{"type": "llm"}]))
    fleet.start_operator()
    catalogue, interval = [service("qwen", "llm")], 3
    agent = fleet.start_agent("edge-1", catalogue, interval=interval, debounce=0.2)
    fleet.wait_leading()
    wait_for("in", lambda: published(fleet, "llm", {"edge-1": "Ready"}))
    wait_for("it renews its Lease", lambda: last_heartbeat(fleet, "edge-1") > 0)
    agent.kill()
    renewed = last_heartbeat(fleet, "edge-1")
    # Integration tests check the delay in simulated time; a busy machine is late here.
    wait_for("Suspect", lambda: fleet.members("llm") == {"edge-1": "Suspect"})
    assert time.time() - renewed >= 3 * interval
    wait_for("out", lambda: fleet.members("llm") == {})
    assert time.time() - renewed >= 4 * interval
    wait_for("out of Redis", lambda: published(fleet, "llm", {}))
    wait_for("the condition", lambda: (fleet.get("nodecapabilities", "edge-1") or {})["status"]["ready"] == "Unknown")
    fleet.start_agent("edge-1", catalogue, interval=interval, debounce=0.2)
    wait_for("back", lambda: published(fleet, "llm", {"edge-1": "Ready"}))


def test_an_edited_slice_and_garbage_in_redis_are_repaired(running: Fleet) -> None:
    patch = '{"members":[{"node":"stranger","state":"Ready","since":"2026-01-01T00:00:00Z"}]}'
    running.kubectl("patch", "nodepoolslice", "llm-0", "--type=merge", "-p", patch)
    wait_for("repaired", lambda: published(running, "llm", BOTH))
    running.kubectl("delete", "nodepoolslice", "llm-0")
    wait_for("created again", lambda: published(running, "llm", BOTH))
    tag = f"{{hotpool:{running.namespace}}}"
    with redis.Redis.from_url(running.redis_url) as server:
        server.set(f"{tag}:pool:llm:ready", "garbage")
        wait_for("garbage overwritten", lambda: server.type(f"{tag}:pool:llm:ready") == b"zset")
    wait_for("whole", lambda: running.members_in_redis("llm") == BOTH)


def test_deletions_of_a_pool_and_a_record_while_the_operator_is_down_take_effect_later(running: Fleet) -> None:
    assert running.operator
    running.operator.kill()
    running.agents["edge-1"].kill()
    running.kubectl("delete", "nodecapability", "edge-1")
    running.kubectl("delete", "nodepool", "tts")
    running.start_operator()
    running.wait_leading()
    wait_for("edge-1 is out", lambda: published(running, "llm", {"edge-2": "Ready"}))
    wait_for("tts is gone", lambda: published(running, "tts", {}))


def test_a_drain_and_its_end_take_effect_at_once(running: Fleet) -> None:
    running.kubectl("patch", "nodecapability", "edge-1", "--type=merge", "-p", '{"spec":{"drain":true}}')
    draining = {"edge-1": "Draining", "edge-2": "Ready"}
    for name in (*SERVICES, "zh-en"):
        wait_for(f"draining in {name}", lambda name=name: published(running, name, draining))  # type: ignore[misc]
    running.kubectl("patch", "nodecapability", "edge-1", "--type=merge", "-p", '{"spec":{"drain":false}}')
    for name in (*SERVICES, "zh-en"):
        wait_for(f"ready in {name}", lambda name=name: published(running, name, BOTH))  # type: ignore[misc]


def test_reported_hardware_decides_about_pools_that_require_some(running: Fleet) -> None:
    none = [{"reason": "Hardware", "count": 2}]

    def excluded(name: str) -> Any:
        return ((running.get("nodepools", name) or {}).get("status") or {}).get("excluded")

    running.apply(pool("large", types=[{"type": "asr"}], hardware={"cpus": 1, "memoryMiB": 1}))
    running.apply(pool("huge", types=[{"type": "asr"}], hardware={"cpus": 1, "memoryMiB": 2**31 - 1}))
    wait_for("both nodes are in large", lambda: published(running, "large", BOTH), 60)
    wait_for("huge has no node", lambda: excluded("huge") == none)
