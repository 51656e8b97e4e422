"""Silence on a real API server: mass silence, a stale Lease watch, and expiry after 600 s (C3, C4, D8)."""

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
    with SimulatedAgents(fleet.admin, fleet.namespace, INTERVAL) as running:
        yield running


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
    wait_for("all are in", lambda: members_in(fleet, "llm", "Ready") == set(NODES))
    return fleet


def members_in(fleet: Fleet, name: str, state: str) -> set[str]:
    return {node for node, found in fleet.members(name).items() if found == state}


def conditions(fleet: Fleet, name: str) -> dict[str, str]:
    found: Any = fleet.get("nodepools", name)
    return {c["type"]: c["reason"] for c in found["status"]["conditions"]}


@pytest.mark.parametrize("silent", [3, 6, 10])
def test_mass_silence_retains_members_a_stop_takes_effect_and_all_recover(
    running: Fleet, agents: SimulatedAgents, silent: int
) -> None:
    """Last heartbeats differ by up to H, so the first may be Offline before the last is Suspect: three may leave."""
    lost, rest = set(NODES[:silent]), set(NODES[silent:])

    def settled() -> bool:
        suspect = members_in(running, "llm", "Suspect")
        return members_in(running, "llm", "Ready") == rest and suspect <= lost and len(suspect) >= silent - MAY_LEAVE

    agents.silence(lost)
    if silent > MAY_LEAVE:
        wait_for("the brake holds", lambda: conditions(running, "llm").get("MassSilence") == "BrakeHolds")
        running.kubectl("wait", "nodepool/llm", "--for=condition=MassSilence", "--timeout=10s")
    wait_for("Offline", lambda: all(reason(running, node) == "Offline" for node in lost))
    wait_for("settled", settled)
    if silent <= MAY_LEAVE:
        wait_for("they left", lambda: not members_in(running, "llm", "Suspect"))
    # Of a pool of one, one may leave; of a pool of two, only one.
    wait_for("single", lambda: running.members("single") == {})
    wait_for("small", lambda: not members_in(running, "small", "Ready") and members_in(running, "small", "Suspect"))
    if rest:
        stopped = min(rest)
        agents.report(stopped, llm=False)
        wait_for("the stopped node leaves", lambda: members_in(running, "llm", "Ready") == rest - {stopped})
        agents.report(stopped, llm=True)
        wait_for("the others stay", settled)
    agents.resume(lost)
    wait_for("all are back", lambda: members_in(running, "llm", "Ready") == set(NODES))
    wait_for("the brake is released", lambda: "MassSilence" not in conditions(running, "llm"))
    wait_for("small too", lambda: members_in(running, "small", "Ready") == {"edge-0", "edge-1"})


def test_a_restart_during_mass_silence_retains_the_members(running: Fleet, agents: SimulatedAgents) -> None:
    lost = set(NODES[:6])
    agents.silence(lost)
    wait_for("the brake holds", lambda: conditions(running, "llm").get("MassSilence") == "BrakeHolds")
    wait_for("Offline", lambda: all(reason(running, node) == "Offline" for node in lost))
    # Conditions are written at once, slices of one pool at most once a second.
    wait_for("settled", lambda: members_in(running, "llm", "Ready") == set(NODES) - lost)
    retained = members_in(running, "llm", "Suspect")
    assert retained
    with SliceWatcher(running.admin, running.namespace) as watcher:
        assert running.operator
        running.operator.kill()
        running.start_operator()
        running.wait_leading()
        time.sleep(6 * INTERVAL)
        assert members_in(running, "llm", "Suspect") == retained
        assert watcher.departures("llm") == []


def reason(fleet: Fleet, node: str) -> str | None:
    found: Any = fleet.get("nodecapabilities", node)
    return next((c["reason"] for c in found["status"]["conditions"] if c["type"] == "Ready"), None) if found else None


def test_after_600_seconds_everything_of_a_node_is_deleted_except_records_changed_by_people(
    running: Fleet, agents: SimulatedAgents
) -> None:
    """To skip ten minutes, the stored transition is moved back while the operator is down."""
    expired = ["edge-1", "edge-2"]  # edge-1 has a label of a person
    agents.silence(expired)
    for node in expired:
        wait_for("Offline", lambda node=node: reason(running, node) == "Offline")  # type: ignore[misc]
    assert running.operator
    running.operator.kill()
    for node in expired:
        found: Any = running.get("nodecapabilities", node)
        for condition in found["status"]["conditions"]:
            condition["lastTransitionTime"] = timestamp(datetime.now(UTC) - timedelta(minutes=11))
        patch = json.dumps({"status": {"conditions": found["status"]["conditions"]}})
        running.kubectl("patch", "nodecapability", node, "--subresource=status", "--type=merge", "-p", patch)
    running.start_operator()
    running.wait_leading()
    wait_for("edge-2 is deleted", lambda: running.get("nodecapabilities", "edge-2") is None)
    wait_for("Leases are deleted", lambda: not {f"hotpool-node-{node}" for node in expired} & leases(running))
    assert reason(running, "edge-1") == "Offline"
    assert not set(expired) & set(running.members("llm"))
    assert {f"hotpool-node-{node}" for node in NODES if node not in expired} <= leases(running)


def leases(fleet: Fleet) -> set[str]:
    found: Any = fleet.leases.list_namespaced_lease(fleet.namespace)
    return {lease.metadata.name for lease in found.items}


@pytest.fixture
def relayed(kind_cluster: Any, redis_address: str) -> Iterator[Callable[[], tuple[Fleet, Relay]]]:
    """A function that returns a fleet whose operator reaches the API server through a relay, and the relay."""
    kubeconfig, kubectl = Path(kind_cluster.kubeconfig_path), Path(kind_cluster.kubectl_path)
    address = urlsplit(yaml.safe_load(kubeconfig.read_text())["clusters"][0]["cluster"]["server"])
    with Relay(address.port or 443) as relay:
        namespace = f"held-{time.time_ns() % 10**6}"
        fleet = Fleet(kubeconfig, kubectl, namespace, redis_address, server=f"https://127.0.0.1:{relay.port}")
        fleet.install()
        yield lambda: (fleet, relay)
        fleet.close()


def test_an_operator_whose_connections_hang_for_a_minute_removes_no_member_and_is_not_ready(
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
        wait_for("all are in", lambda: members_in(fleet, "llm", "Ready") == set(NODES))
        relay.hold()
        held_until = time.monotonic() + HOLD_SECONDS
        wait_for("it is not ready", lambda: fleet.probe("readyz") != 200)
        wait_for("it stands by", lambda: "[-] leading" in fleet.ask_operator("readyz")[1])
        while time.monotonic() < held_until:
            assert fleet.probe("readyz") == 503
            time.sleep(1)
        relay.resume()
        fleet.wait_leading()
        assert operator.running
        time.sleep(5 * INTERVAL)
        assert members_in(fleet, "llm", "Ready") == set(NODES)
        assert watcher.departures("llm") == []
