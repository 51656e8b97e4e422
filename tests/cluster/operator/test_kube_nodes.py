"""v1 Nodes on a real API server with garbage collector, and the operator's own account (C5, C7, D2, D9)."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from tests.support.fleet_objects import pool, published

from localfleet.catalogue import translator
from localfleet.fleet import Fleet
from localfleet.process import wait_for

PROGRAM: Final = str(Path(sys.executable).with_name("hotpool"))
ZONE: Final = "topology.kubernetes.io/zone"


def kube_node(name: str, **labels: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}


@pytest.fixture
def node(fleet: Fleet) -> Iterator[str]:
    """The name of a v1 Node in zone a, on which no program runs."""
    name = f"{fleet.namespace}-1"
    fleet.apply(kube_node(name, **{ZONE: "a"}))
    yield name
    fleet.kubectl("delete", "node", name, "--ignore-not-found")


@pytest.fixture
def outside(fleet: Fleet) -> str:
    """The name of a node without a v1 Node."""
    return f"{fleet.namespace}-2"


@pytest.fixture
def running(fleet: Fleet, node: str, outside: str) -> Fleet:
    """An agent on each, in a pool of all nodes with speech recognition; one of them also in a pool of the zone."""
    fleet.apply(pool("all", types=[{"type": "asr"}]), pool("zone-a", nodeSelector={"matchLabels": {ZONE: "a"}}))
    fleet.start_operator("operator", "--kube-nodes")
    for name in (node, outside):
        fleet.start_agent(name, translator(["zh", "en"]), debounce=0.2)
    fleet.wait_leading()
    wait_for("both are in", lambda: published(fleet, "all", {node: "Ready", outside: "Ready"}), 60)
    wait_for("the Node's zone counts", lambda: published(fleet, "zone-a", {node: "Ready"}))
    return fleet


def owners(fleet: Fleet, name: str) -> list[tuple[str, str]]:
    """Return kind and uid of the owners of a NodeCapability."""
    found = fleet.get("nodecapabilities", name) or {"metadata": {}}
    return [(owner["kind"], owner["uid"]) for owner in found["metadata"].get("ownerReferences") or []]


def uid(fleet: Fleet, kind: str, name: str) -> str:
    return fleet.kubectl("get", kind, name, "-o", "jsonpath={.metadata.uid}")


def conditions(fleet: Fleet, name: str) -> dict[str, str]:
    found = fleet.get("nodecapabilities", name) or {"status": {"conditions": []}}
    return {condition["type"]: condition["reason"] for condition in found["status"]["conditions"]}


def why(fleet: Fleet, account: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    command = [PROGRAM, "why", *words, "-n", fleet.namespace]
    environment = {**os.environ, "KUBECONFIG": str(account), "COLUMNS": "80"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


def test_a_cordon_is_a_drain_and_independent_of_spec_drain(running: Fleet, node: str, outside: str) -> None:
    viewer = running.viewer()
    running.kubectl("cordon", node)
    wait_for("it drains", lambda: published(running, "all", {node: "Draining", outside: "Ready"}))
    cordoned, drained = {"Ready": "Cordoned", "Draining": "Cordoned"}, {"Ready": "Draining", "Draining": "Requested"}
    wait_for("its conditions", lambda: conditions(running, node).items() >= cordoned.items())
    found = why(running, viewer, node, "all")
    assert f"kubectl uncordon {node}" in found.stdout, found
    running.kubectl("patch", "nodecapability", node, "--type=merge", "-p", '{"spec":{"drain":true}}')
    wait_for("both", lambda: conditions(running, node).items() >= drained.items())
    running.kubectl("uncordon", node)
    wait_for("the cordon is over", lambda: "kubectl uncordon" not in why(running, viewer, node, "all").stdout)
    assert running.members("all")[node] == "Draining"
    running.kubectl("patch", "nodecapability", node, "--type=merge", "-p", '{"spec":{"drain":false}}')
    wait_for("it is Ready again", lambda: published(running, "all", {node: "Ready", outside: "Ready"}))


def test_a_label_of_the_node_counts_unless_the_record_has_it(running: Fleet, node: str) -> None:
    shown = why(running, running.viewer(), node, "zone-a").stdout
    assert "(label of the Node)" in " ".join(shown.split()), shown
    running.kubectl("label", "node", node, f"{ZONE}=b", "--overwrite")
    wait_for("it left the zone", lambda: published(running, "zone-a", {}))
    running.kubectl("label", "nodecapability", node, f"{ZONE}=a")
    wait_for("the record's label counts", lambda: published(running, "zone-a", {node: "Ready"}))
    running.kubectl("label", "nodecapability", node, f"{ZONE}-")
    wait_for("the Node's label counts again", lambda: published(running, "zone-a", {}))


def test_the_deletion_of_a_node_deletes_its_nodecapability(running: Fleet, node: str, outside: str) -> None:
    wait_for("the Node owns it", lambda: owners(running, node) == [("Node", uid(running, "node", node))])
    assert owners(running, outside) == []
    kept = uid(running, "nodecapability", outside)
    running.agents[node].stop()
    wait_for("it left", lambda: published(running, "all", {outside: "Ready"}))
    assert running.operator
    running.operator.stop()
    running.kubectl("delete", "node", node)
    wait_for("collected while no operator runs", lambda: running.get("nodecapabilities", node) is None, 60)
    assert uid(running, "nodecapability", outside) == kept


def test_a_recreated_node_owns_the_new_record_of_its_agent(running: Fleet, node: str) -> None:
    wait_for("the Node owns it", lambda: owners(running, node) == [("Node", uid(running, "node", node))])
    before, former = uid(running, "node", node), uid(running, "nodecapability", node)
    running.kubectl("delete", "node", node)
    running.apply(kube_node(node, **{ZONE: "a"}))
    after = uid(running, "node", node)
    assert after != before
    wait_for("the new Node owns it", lambda: owners(running, node) == [("Node", after)], 60)
    assert uid(running, "nodecapability", node) != former
    wait_for("it is in again", lambda: published(running, "zone-a", {node: "Ready"}))


def test_without_the_right_to_read_nodes_nothing_is_written_and_no_member_removed(
    running: Fleet, node: str, outside: str
) -> None:
    running.kubectl("cordon", node)
    wait_for("it drains", lambda: published(running, "zone-a", {node: "Draining"}))
    wait_for("it drains in all", lambda: published(running, "all", {node: "Draining", outside: "Ready"}))
    viewer, binding = running.viewer(), f"hotpool-{running.namespace}-nodes"
    role = json.loads(running.kubectl("get", "clusterrolebinding", binding, "-o", "json"))
    running.kubectl("delete", "clusterrolebinding", binding, f"hotpool-{running.namespace}-viewer")
    assert running.operator
    running.operator.stop()
    running.start_operator("operator", "--kube-nodes")
    wait_for("readyz shows it", lambda: "403" in running.ask_operator("readyz")[1], 60)
    assert "[-] listed" in running.ask_operator("readyz")[1]
    refused = why(running, viewer, node, "all")
    assert (refused.returncode, refused.stdout) == (4, "")
    assert f"ClusterRole hotpool-{running.namespace}-viewer" in refused.stderr
    assert running.members("zone-a") == {node: "Draining"}
    assert running.members("all") == {node: "Draining", outside: "Ready"}
    running.apply({key: role[key] for key in ("apiVersion", "kind", "metadata", "roleRef", "subjects")})
    running.wait_leading()
    running.kubectl("uncordon", node)
    wait_for("it follows again", lambda: published(running, "all", {node: "Ready", outside: "Ready"}))


def test_a_standby_that_has_listed_everything_is_ready(running: Fleet) -> None:
    running.start_operator("two", "--kube-nodes")
    wait_for("the standby is ready", lambda: running.probe("readyz", "two") == 200, 60)
    assert "[+] following" in running.ask_operator("readyz", "two")[1]
    assert "[+] leading" in running.ask_operator("readyz")[1]
    assert "hotpool_leader 0.0" in running.ask_operator("metrics", "two")[1]
    assert "hotpool_leader 1.0" in running.ask_operator("metrics")[1]
    counted = 'hotpool_metrics_not_shown{kind="pool"} 0.0'
    assert counted in running.ask_operator("metrics")[1]
    assert counted not in running.ask_operator("metrics", "two")[1], "only a leader counts the fleet"
