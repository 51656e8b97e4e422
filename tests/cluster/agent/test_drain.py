"""A drain on the machine, by the whole path: command, agent, NodeCapability, operator, slices and Redis (C5)."""

from typing import Any

import pytest
from tests.support.fleet_objects import BOTH, pool, published

from localfleet.catalogue import service
from localfleet.fleet import Fleet
from localfleet.process import wait_for

Catalogues = dict[str, list[dict[str, Any]]]

DRAINING = {"edge-1": "Draining", "edge-2": "Ready"}


@pytest.fixture
def catalogues() -> Catalogues:
    """One service on each node."""
    return {node: [service("qwen", "llm", attributes={"models": ["m1"]})] for node in BOTH}


@pytest.fixture
def running(fleet: Fleet, catalogues: Catalogues) -> Fleet:
    """Two nodes in a pool made by hand, and in one of a generator."""
    generator = {"rule": {"attributeValues": {"type": "llm", "key": "models"}}, "template": {"spec": {}}}
    fleet.apply(
        pool("llm", types=[{"type": "llm"}]),
        {
            "apiVersion": "hotpool.dev/v1alpha1",
            "kind": "NodePoolGenerator",
            "metadata": {"name": "models", "namespace": fleet.namespace},
            "spec": generator,
        },
    )
    fleet.start_operator()
    for node in BOTH:
        fleet.start_agent(node, catalogues[node], debounce=0.5, onAgentExit="keep")
    fleet.wait_leading()
    wait_for("both nodes are in", lambda: published(fleet, "llm", BOTH), 60)
    return fleet


def _generated(fleet: Fleet) -> str:
    pools = fleet.list("nodepools")
    return next((str(item["metadata"]["name"]) for item in pools if item["spec"].get("generated")), "")


def test_a_drained_machine_is_listed_as_draining_also_after_a_restart_until_it_is_undrained(
    running: Fleet, catalogues: Catalogues
) -> None:
    fleet = running
    wait_for("the generated pool", lambda: published(fleet, _generated(fleet), BOTH))
    pools = ("llm", _generated(fleet))
    assert fleet.agent("edge-1", "drain") == "edge-1: draining\n"
    for name in pools:
        wait_for(f"draining in {name}", lambda name=name: published(fleet, name, DRAINING))  # type: ignore[misc]
    wait_for("the columns of kubectl", lambda: _columns(fleet) == ["False", "Draining", "1/1", "llm", "True"])
    assert fleet.types_in_redis("edge-1") == {"llm"}, "its service continues to run"

    fleet.agents["edge-1"].kill()
    fleet.start_agent("edge-1", catalogues["edge-1"], debounce=0.5, onAgentExit="keep")
    wait_for("it reports again", lambda: _report(fleet).get("epoch") == 2)
    assert _report(fleet)["draining"] is True
    wait_for("still draining", lambda: published(fleet, "llm", DRAINING))

    assert fleet.agent("edge-1", "undrain") == "edge-1: not draining\n"
    for name in pools:
        wait_for(f"ready in {name}", lambda name=name: published(fleet, name, BOTH))  # type: ignore[misc]


def _columns(fleet: Fleet) -> list[str]:
    return fleet.kubectl("get", "ncap", "edge-1", "--no-headers").split()[1:6]


def _report(fleet: Fleet) -> dict[str, Any]:
    found = fleet.get("nodecapabilities", "edge-1") or {}
    return dict(found.get("status", {}).get("report", {}))


def test_the_drains_of_people_and_of_the_machine_are_independent(running: Fleet) -> None:
    fleet = running
    fleet.agent("edge-1", "drain")
    fleet.kubectl("patch", "nodecapability", "edge-1", "--type=merge", "-p", '{"spec":{"drain":true}}')
    message = "spec.drain is true, and the agent reports draining (hotpool-agent drain)"
    wait_for("both are named", lambda: _message(fleet) == message)
    wait_for("draining", lambda: published(fleet, "llm", DRAINING))
    fleet.agent("edge-1", "undrain")
    wait_for("one is left", lambda: _message(fleet) == "spec.drain is true")
    assert fleet.members("llm") == DRAINING
    fleet.kubectl("patch", "nodecapability", "edge-1", "--type=merge", "-p", '{"spec":{"drain":false}}')
    wait_for("ready", lambda: published(fleet, "llm", BOTH))


def _message(fleet: Fleet) -> str:
    found = fleet.get("nodecapabilities", "edge-1") or {}
    conditions = found.get("status", {}).get("conditions", [])
    return next((str(item["message"]) for item in conditions if item["type"] == "Draining"), "")
