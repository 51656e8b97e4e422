"""v1 Nodes that are not ready, unreachable or shut down, on a real API server with its node controller (C8, D8, F2).

No kubelet runs: the tests write what it would write. The node controller sets Ready=Unknown 50 s after the last write.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest
from tests.support.fleet_objects import pool, published
from tests.support.slice_watcher import SliceWatcher

from hotpool.lookup import SyncLookup
from localfleet.catalogue import translator
from localfleet.fleet import Fleet
from localfleet.process import wait_for

PROGRAM: Final = str(Path(sys.executable).with_name("hotpool"))
AT_ONCE: Final = 10.0
"""Seconds on a busy machine; silence would need 45 s."""
OFF: Final = "[container runtime is down, node is shutting down]"
OUT_OF_SERVICE: Final = "node.kubernetes.io/out-of-service"


@pytest.fixture
def nodes(fleet: Fleet) -> Iterator[list[str]]:
    """The names of three v1 Nodes that are ready."""
    names = [f"{fleet.namespace}-{number}" for number in range(3)]
    for name in names:
        fleet.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})
        set_ready(fleet, name, "True")
    yield names
    fleet.kubectl("delete", "node", *names, "--ignore-not-found")


def start(fleet: Fleet, nodes: list[str], *, intervals: tuple[int, ...] = (15, 15, 15)) -> None:
    """Start an operator that follows Nodes, and an agent on each node, in pool `all`."""
    fleet.apply(pool("all", types=[{"type": "asr"}]))
    fleet.start_operator("operator", "--kube-nodes")
    for name, interval in zip(nodes, intervals, strict=True):
        fleet.start_agent(name, translator(["zh", "en"]), debounce=0.2, interval=interval)
    fleet.wait_leading()


def set_ready(fleet: Fleet, name: str, status: str, message: str = "written by the test") -> None:
    """Write the condition Ready of a v1 Node, as a kubelet does. The node controller looks at lastHeartbeatTime."""
    times = dict.fromkeys(("lastHeartbeatTime", "lastTransitionTime"), datetime.now(UTC).isoformat(timespec="seconds"))
    ready = {"type": "Ready", "status": status, "reason": "KubeletTest", "message": message, **times}
    body = json.dumps({"status": {"conditions": [ready]}})
    fleet.kubectl("patch", "node", name, "--subresource=status", "-p", body)


def expect(fleet: Fleet, nodes: list[str], *states: str | None, seconds: float = AT_ONCE) -> None:
    """Wait until slices and Redis hold the nodes in these states; None: out."""
    wanted = {name: state for name, state in zip(nodes, states, strict=True) if state}
    wait_for(f"members {wanted}", lambda: published(fleet, "all", wanted), seconds)


def reason(fleet: Fleet, name: str) -> str:
    found = fleet.get("nodecapabilities", name) or {"status": {}}
    conditions = found["status"].get("conditions") or []
    return next((item["reason"] for item in conditions if item["type"] == "Ready"), "")


def wait_for_reason(fleet: Fleet, name: str, expected: str) -> None:
    wait_for(f"reason {expected}", lambda: reason(fleet, name) == expected, AT_ONCE)


def why(fleet: Fleet, account: Path, name: str) -> Any:
    command = [PROGRAM, "why", name, "all", "-n", fleet.namespace, "-o", "json"]
    done = subprocess.run(command, capture_output=True, check=True, env={**os.environ, "KUBECONFIG": str(account)})
    return json.loads(done.stdout)


def test_not_ready_makes_a_node_suspect_and_a_shutdown_takes_it_out(fleet: Fleet, nodes: list[str]) -> None:
    start(fleet, nodes)
    viewer = fleet.viewer()
    expect(fleet, nodes, "Ready", "Ready", "Ready", seconds=60)
    set_ready(fleet, nodes[0], "False", "container runtime is down")
    expect(fleet, nodes, "Suspect", "Ready", "Ready")
    wait_for_reason(fleet, nodes[0], "NodeNotReady")
    (remark,) = why(fleet, viewer, nodes[0])["remarks"]
    assert (remark["reason"], "container runtime is down" in remark["text"]) == ("NodeNotReady", True)
    with SyncLookup.from_url(fleet.redis_url, namespace=fleet.namespace) as lookup:
        assert nodes[0] not in {getattr(lookup.pick("all"), "node", None) for _ in range(50)}
    assert "asr" in fleet.types_in_redis(nodes[0])
    set_ready(fleet, nodes[0], "False", OFF)
    expect(fleet, nodes, None, "Ready", "Ready")
    wait_for_reason(fleet, nodes[0], "NodeShutdown")
    assert fleet.types_in_redis(nodes[0]) == set()
    fleet.kubectl("taint", "node", nodes[1], f"{OUT_OF_SERVICE}=nodeshutdown:NoExecute")
    expect(fleet, nodes, None, None, "Ready")
    decided = [item for item in why(fleet, viewer, nodes[1])["requirements"] if item["decides"]]
    assert [item["observed"] for item in decided] == [f"taint {OUT_OF_SERVICE}"]
    fleet.kubectl("taint", "node", nodes[1], f"{OUT_OF_SERVICE}-")
    set_ready(fleet, nodes[0], "True")
    expect(fleet, nodes, "Ready", "Ready", "Ready")


def test_unknown_counts_only_for_a_node_whose_agent_is_silent(fleet: Fleet, nodes: list[str]) -> None:
    """The kubelets of two nodes are silent, and the agent of one of them."""
    start(fleet, nodes, intervals=(15, 4, 15))
    expect(fleet, nodes, "Ready", "Ready", "Ready", seconds=60)
    with SliceWatcher(fleet.admin, fleet.namespace) as watcher:
        for name in nodes[:2]:
            set_ready(fleet, name, "Unknown")
        os.kill(fleet.agents[nodes[1]].pid, signal.SIGSTOP)
        try:
            expect(fleet, nodes, "Ready", "Suspect", "Ready", seconds=30)
            wait_for_reason(fleet, nodes[1], "NodeUnreachable")
        finally:
            os.kill(fleet.agents[nodes[1]].pid, signal.SIGCONT)
        expect(fleet, nodes, "Ready", "Ready", "Ready", seconds=30)
    assert {seen[nodes[0]] for seen in watcher.memberships["all"]} == {"Ready"}


def test_restart_and_failover_change_nothing_while_nodes_are_not_ready(fleet: Fleet, nodes: list[str]) -> None:
    """One node is not ready before the operator starts, one shuts down later, and its kubelet is silent then."""
    set_ready(fleet, nodes[0], "False")
    start(fleet, nodes)
    expect(fleet, nodes, "Suspect", "Ready", "Ready", seconds=60)
    set_ready(fleet, nodes[1], "False", OFF)
    expect(fleet, nodes, "Suspect", None, "Ready")
    wait_for_reason(fleet, nodes[1], "NodeShutdown")
    os.kill(fleet.agents[nodes[1]].pid, signal.SIGSTOP)
    try:
        set_ready(fleet, nodes[1], "Unknown", "Kubelet stopped posting node status.")
        assert fleet.operator
        leader = fleet.operator
        fleet.start_operator("two", "--kube-nodes")
        wait_for("the standby is ready", lambda: fleet.probe("readyz", "two") == 200)
        with SliceWatcher(fleet.admin, fleet.namespace) as watcher:
            leader.kill()
            fleet.wait_leading(name="two")
            fleet.operator.stop()
            fleet.start_operator("three", "--kube-nodes")
            fleet.wait_leading(name="three")
            set_ready(fleet, nodes[2], "False")
            expect(fleet, nodes, "Suspect", None, "Suspect")
        assert all(seen.get(nodes[0]) == "Suspect" and nodes[1] not in seen for seen in watcher.memberships["all"])
    finally:
        os.kill(fleet.agents[nodes[1]].pid, signal.SIGCONT)
