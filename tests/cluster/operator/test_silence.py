"""Silence on the real API server: mass silence, deafness of the operator, and the end after 600 s (C3, C4, D8)."""

import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from tests.support.fleet_objects import pool
from tests.support.simulated_agents import SimulatedAgents
from tests.support.slice_watcher import SliceWatcher

from hotpool.api.meta import timestamp
from localfleet.fleet import Fleet
from localfleet.process import wait_for
from localfleet.relay import Relay

INTERVAL = 2
NODES = [f"edge-{number}" for number in range(10)]
HOLD_SECONDS = 60.0
MAY_LEAVE = 3
"""30 % of the ten nodes."""
LLM = [{"type": "llm"}]


@pytest.fixture
def agents(fleet: Fleet) -> Iterator[SimulatedAgents]:
    with SimulatedAgents(fleet.admin, fleet.namespace, INTERVAL) as made:
        yield made


@pytest.fixture
def running(fleet: Fleet, agents: SimulatedAgents) -> Fleet:
    """Ten nodes in `llm`, of which two are in `small` and one in `single`."""
    small: dict[str, Any] = {"small": {"size": "small"}, "single": {"only": "one"}}
    pools = [pool(name, types=LLM, nodeSelector={"matchLabels": labels}) for name, labels in small.items()]
    fleet.apply(pool("llm", types=LLM), *pools)
    agents.create(NODES, ["llm"])
    fleet.kubectl("label", "nodecapability", "edge-0", "size=small", "only=one")
    fleet.kubectl("label", "nodecapability", "edge-1", "size=small")
    fleet.start_operator()
    fleet.wait_leading()
    wait_for("all are in", lambda: said(fleet, "llm", "Ready") == set(NODES))
    return fleet


def said(fleet: Fleet, name: str, state: str) -> set[str]:
    return {node for node, found in fleet.members(name).items() if found == state}


def conditions(fleet: Fleet, name: str) -> dict[str, str]:
    found: Any = fleet.get("nodepools", name)
    return {c["type"]: c["reason"] for c in found["status"]["conditions"]}


@pytest.mark.parametrize("silent", [3, 6, 10])
def test_mass_silence_with_a_stop_in_between_and_recovery(running: Fleet, agents: SimulatedAgents, silent: int) -> None:
    """Last heartbeats differ by up to H, so the first may be Offline before the last is Suspect: three may leave."""
    gone, rest = set(NODES[:silent]), set(NODES[silent:])

    def settled() -> bool:
        held = said(running, "llm", "Suspect")
        return said(running, "llm", "Ready") == rest and held <= gone and len(held) >= silent - MAY_LEAVE

    agents.silence(gone)
    if silent > MAY_LEAVE:
        wait_for("the brake holds", lambda: conditions(running, "llm").get("MassSilence") == "BrakeHolds")
        running.kubectl("wait", "nodepool/llm", "--for=condition=MassSilence", "--timeout=10s")
    wait_for("Offline", lambda: all(reason(running, node) == "Offline" for node in gone))
    wait_for("settled", settled)
    if silent <= MAY_LEAVE:
        wait_for("they left", lambda: not said(running, "llm", "Suspect"))
    # Of a pool of one, one may leave; of two, one may, and not both.
    wait_for("single", lambda: running.members("single") == {})
    wait_for("small", lambda: not said(running, "small", "Ready") and said(running, "small", "Suspect"))
    if rest:
        stopped = min(rest)
        agents.report(stopped, llm=False)
        wait_for("a stop passes", lambda: said(running, "llm", "Ready") == rest - {stopped})
        agents.report(stopped, llm=True)
        wait_for("the others stay", settled)
    agents.resume(gone)
    wait_for("all are back", lambda: said(running, "llm", "Ready") == set(NODES))
    wait_for("it is over", lambda: "MassSilence" not in conditions(running, "llm"))
    wait_for("small too", lambda: said(running, "small", "Ready") == {"edge-0", "edge-1"})


def test_a_restart_in_the_middle_holds_on(running: Fleet, agents: SimulatedAgents) -> None:
    gone = set(NODES[:6])
    agents.silence(gone)
    wait_for("the brake holds", lambda: conditions(running, "llm").get("MassSilence") == "BrakeHolds")
    wait_for("Offline", lambda: all(reason(running, node) == "Offline" for node in gone))
    held = said(running, "llm", "Suspect")
    assert held
    with SliceWatcher(running.admin, running.namespace) as watcher:
        assert running.operator
        running.operator.kill()
        running.start_operator()
        running.wait_leading()
        time.sleep(6 * INTERVAL)
        assert said(running, "llm", "Suspect") == held
        assert watcher.departures("llm") == []


def reason(fleet: Fleet, node: str) -> str | None:
    found: Any = fleet.get("nodecapabilities", node)
    return next((c["reason"] for c in found["status"]["conditions"] if c["type"] == "Ready"), None) if found else None


def test_after_600_seconds_everything_of_a_node_goes_but_what_people_wrote_into(
    running: Fleet, agents: SimulatedAgents
) -> None:
    """The ten minutes are over at once: the stored transition is moved back while the operator is down."""
    gone = ["edge-1", "edge-2"]  # people labelled edge-1
    agents.silence(gone)
    for node in gone:
        wait_for("Offline", lambda node=node: reason(running, node) == "Offline")  # type: ignore[misc]
    assert running.operator
    running.operator.kill()
    for node in gone:
        found: Any = running.get("nodecapabilities", node)
        for condition in found["status"]["conditions"]:
            condition["lastTransitionTime"] = timestamp(datetime.now(UTC) - timedelta(minutes=11))
        patch = json.dumps({"status": {"conditions": found["status"]["conditions"]}})
        running.kubectl("patch", "nodecapability", node, "--subresource=status", "--type=merge", "-p", patch)
    running.start_operator()
    running.wait_leading()
    wait_for("edge-2 is gone", lambda: running.get("nodecapabilities", "edge-2") is None)
    wait_for("Leases are gone", lambda: not {f"hotpool-node-{node}" for node in gone} & leases(running))
    assert reason(running, "edge-1") == "Offline"
    assert not set(gone) & set(running.members("llm"))
    assert {f"hotpool-node-{node}" for node in NODES if node not in gone} <= leases(running)


def leases(fleet: Fleet) -> set[str]:
    found: Any = fleet.leases.list_namespaced_lease(fleet.namespace)
    return {lease.metadata.name for lease in found.items}


@pytest.fixture
def relayed(kind_cluster: Any, redis_address: str) -> Iterator[Callable[[], tuple[Fleet, Relay]]]:
    """A fleet whose operator reaches the API server through a relay."""
    kubeconfig, kubectl = Path(kind_cluster.kubeconfig_path), Path(kind_cluster.kubectl_path)
    address = urlsplit(yaml.safe_load(kubeconfig.read_text())["clusters"][0]["cluster"]["server"])
    with Relay(address.port or 443) as relay:
        namespace = f"held-{time.time_ns() % 10**6}"
        made = Fleet(kubeconfig, kubectl, namespace, redis_address, server=f"https://127.0.0.1:{relay.port}")
        made.install()
        yield lambda: (made, relay)
        made.close()


def test_an_operator_whose_connections_are_held_for_a_minute_removes_nobody_and_says_so(
    relayed: Callable[[], tuple[Fleet, Relay]],
) -> None:
    fleet, relay = relayed()
    with (
        SimulatedAgents(fleet.admin, fleet.namespace, INTERVAL) as agents,
        SliceWatcher(fleet.admin, fleet.namespace) as watcher,
    ):
        fleet.apply(pool("llm", types=LLM))
        agents.create(NODES, ["llm"])
        operator = fleet.start_operator()
        fleet.wait_leading()
        wait_for("all are in", lambda: said(fleet, "llm", "Ready") == set(NODES))
        relay.hold()
        held_until = time.monotonic() + HOLD_SECONDS
        wait_for("it says so", lambda: fleet.probe("readyz") != 200)
        wait_for("it may not lead any more", lambda: not operator.running)
        assert operator.stop() == 1
        fleet.start_operator()  # as a kubelet does
        wait_for("it waits", lambda: fleet.probe("healthz") == 200)
        while time.monotonic() < held_until:
            assert fleet.probe("readyz") == 503
            time.sleep(1)
        relay.resume()
        fleet.wait_leading()
        time.sleep(5 * INTERVAL)
        assert said(fleet, "llm", "Ready") == set(NODES)
        assert watcher.departures("llm") == []
