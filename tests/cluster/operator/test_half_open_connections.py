"""Connections of which nothing arrives any more, not even their end: half-open ones (requirement C3)."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from tests.support.fleet_objects import pool, published
from tests.support.simulated_agents import SimulatedAgents

from localfleet.fleet import Fleet
from localfleet.process import wait_for
from localfleet.relay import Relay

INTERVAL = 4
LLM = [{"type": "llm"}]
EFFECT_SECONDS = 40.0
"""Time for a change after all connections fell silent, twice what it takes alone: tests use all cores side by side."""
HASHES = {
    "apiVersion": "hotpool.dev/v1alpha1",
    "kind": "NodePoolGenerator",
    "metadata": {"name": "h"},
    "spec": {"rule": {"hash": {"count": 1}}, "template": {"spec": {"requires": {"types": LLM}}}},
}
WATCHED = {"nodecapabilities", "nodepools", "nodepoolslices", "nodepoolgenerators", "leases", "nodes"}


@pytest.fixture
def relayed(kind_cluster: Any, redis_address: str) -> Iterator[tuple[Fleet, Relay, str]]:
    """A fleet whose operator reaches the API server through a relay, the relay, and a v1 Node without programs."""
    kubeconfig, kubectl = Path(kind_cluster.kubeconfig_path), Path(kind_cluster.kubectl_path)
    address = urlsplit(yaml.safe_load(kubeconfig.read_text())["clusters"][0]["cluster"]["server"])
    with Relay(address.port or 443) as relay:
        namespace = f"half-{time.time_ns() % 10**6}"
        fleet = Fleet(kubeconfig, kubectl, namespace, redis_address, server=f"https://127.0.0.1:{relay.port}")
        fleet.install()
        fleet.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": namespace}})
        yield fleet, relay, namespace
        fleet.kubectl("delete", "node", namespace, "--ignore-not-found")
        fleet.close()


def test_changes_of_every_kind_take_effect_after_all_connections_fell_silent_without_an_end(
    relayed: tuple[Fleet, Relay, str],
) -> None:
    """New connections work: the watches must be replaced, and /readyz names them until then (C3)."""
    fleet, relay, node = relayed
    everyone = dict.fromkeys([node, "edge-1", "edge-2"], "Ready")
    with SimulatedAgents(fleet.admin, fleet.namespace, INTERVAL) as agents:
        fleet.apply(pool("llm", types=LLM), pool("calm", nodeSelector={"matchLabels": {"calm": "yes"}}))
        agents.create(everyone, ["llm"])
        fleet.kubectl("label", "nodecapability", "edge-2", "calm=yes")
        operator = fleet.start_operator("operator", "--kube-nodes")
        fleet.wait_leading()
        wait_for("all are in", lambda: published(fleet, "llm", everyone))
        wait_for("edge-2 is calm", lambda: published(fleet, "calm", {"edge-2": "Ready"}))
        wait_for("it is ready", lambda: fleet.probe("readyz") == 200)
        uid = slice_uid(fleet, "calm")
        relay.forget()
        changed = time.monotonic()
        agents.report("edge-1", llm=False)
        fleet.kubectl("cordon", node)
        fleet.kubectl("delete", "nodepoolslices", "-l", "hotpool.dev/pool=calm")
        fleet.apply(pool("new", types=LLM), HASHES)
        waiting: dict[str, Callable[[], bool]] = {
            "nodecapabilities and nodes": lambda: published(fleet, "llm", {node: "Draining", "edge-2": "Ready"}),
            "nodepools": lambda: "edge-2" in fleet.members("new"),
            "nodepoolslices": lambda: slice_uid(fleet, "calm") not in (uid, None),
            "nodepoolgenerators": lambda: any(name.startswith("h-") for name in names(fleet, "nodepools")),
        }
        named: set[str] = set()
        with ThreadPoolExecutor(1) as threads:
            probing = threads.submit(collect_silent_watches, fleet, named, changed + EFFECT_SECONDS)
            while waiting and time.monotonic() < changed + EFFECT_SECONDS:
                waiting = {name: done for name, done in waiting.items() if not done()}
            assert waiting == {}
            probing.result()
        assert named == WATCHED
        wait_for("it is ready again", lambda: fleet.probe("readyz") == 200)
        agents.silence(["edge-2"])
        wait_for("silence counts again", lambda: fleet.members("llm").get("edge-2") != "Ready")
        assert operator.running


def names(fleet: Fleet, plural: str) -> set[str]:
    return {item["metadata"]["name"] for item in fleet.list(plural)}


def collect_silent_watches(fleet: Fleet, named: set[str], until: float) -> None:
    """Add the kinds that /readyz names as silent, until all are or the time has come (monotonic seconds)."""
    while named != WATCHED and time.monotonic() < until:
        lines = [line for line in fleet.ask_operator("readyz")[1].splitlines() if line.startswith("[-] watches")]
        named |= WATCHED & {word.strip(",") for line in lines for word in line.split()}


def slice_uid(fleet: Fleet, name: str) -> str | None:
    """Return the uid of a pool's only slice, or None."""
    found = [item for item in fleet.list("nodepoolslices") if item["metadata"]["labels"]["hotpool.dev/pool"] == name]
    return found[0]["metadata"]["uid"] if found else None
