"""Events, a node's last transitions and hot-plug metrics on real servers (requirements C6, D5, D10, D11, F2, F4).

The operator uses the account of its manifest.
"""

import asyncio
import json
from typing import Any

import pytest
from tests.support.fleet_objects import BOTH, pool

from hotpool.core.generators.admission import pool_name
from hotpool.lookup import Lookup, Transition
from localfleet.catalogue import service, translator
from localfleet.fleet import Fleet
from localfleet.process import wait_for

PAIR_POOL = pool_name("speech", "zh-en")


def events(fleet: Fleet, name: str) -> dict[str, dict[str, Any]]:
    """Return reason → the last Event about an object."""
    listed = json.loads(fleet.kubectl("get", "events.events.k8s.io", "-o", "json"))["items"]
    ours = [e for e in listed if e["regarding"]["name"] == name and e["reportingController"] == "hotpool.dev/operator"]
    return {event["reason"]: event for event in sorted(ours, key=lambda event: str(event["eventTime"]))}


def wait_event(fleet: Fleet, name: str, reason: str, note: str = "") -> dict[str, Any]:
    """Wait for an Event with this note; return it."""

    def found() -> bool:
        event = events(fleet, name).get(reason)
        return event is not None and note in event["note"]

    wait_for(f"{name} {reason}", found, 60)
    return events(fleet, name)[reason]


def transitions(fleet: Fleet, node: str) -> tuple[Transition, ...]:
    async def ask() -> tuple[Transition, ...]:
        async with Lookup.from_url(fleet.redis_url, namespace=fleet.namespace) as lookup:
            return await lookup.transitions(node)

    return asyncio.run(ask())


def hotplug(fleet: Fleet) -> set[tuple[str, str]]:
    """Return stages and directions of all observations."""
    lines = fleet.ask_operator("metrics")[1].splitlines()
    found = [line for line in lines if line.startswith("hotpool_hotplug_seconds_count")]
    labels = [
        dict(part.split("=") for part in line[line.index("{") + 1 : line.index("}")].split(",")) for line in found
    ]
    return {(label["stage"].strip('"'), label["direction"].strip('"')) for label in labels}


@pytest.fixture
def running(fleet: Fleet) -> Fleet:
    """Two nodes in a hand-made pool, and a generator."""
    fleet.apply(pool("llm", types=[{"type": "llm"}]))
    generator = {"rule": {"languagePairs": {}}, "template": {"spec": {"requires": {"types": [{"type": "asr"}]}}}}
    fleet.apply(
        {
            "apiVersion": "hotpool.dev/v1alpha1",
            "kind": "NodePoolGenerator",
            "metadata": {"name": "speech"},
            "spec": generator,
        }
    )
    fleet.start_operator()
    for node in BOTH:
        fleet.start_agent(node, [*translator(["zh", "en"]), service("qwen", "llm")], debounce=0.2)
    fleet.wait_leading()
    wait_for("both are in", lambda: fleet.members("llm") == BOTH, 60)
    wait_for("the generated pool", lambda: fleet.members(PAIR_POOL) == BOTH, 60)
    return fleet


def test_pool_node_and_leader_have_events_transitions_and_metrics(running: Fleet) -> None:
    leading = wait_event(running, "hotpool-operator", "Leading", "term 1")
    assert leading["regarding"]["kind"] == "Lease"
    assert "Leading" in running.kubectl("describe", "lease", "hotpool-operator")
    wait_event(running, "llm", "Ready", "EnoughMembers")
    wait_event(running, "edge-1", "Live")
    running.agent("edge-1", "stop", "qwen")
    wait_event(running, "llm", "MembersChanged", "1 left (TypeNotReady 1) [edge-1]")
    wait_for("describe", lambda: "TypeNotReady 1" in running.kubectl("describe", "nodepools.hotpool.dev", "llm"))
    wait_for("the last transition", lambda: bool(transitions(running, "edge-1")))
    wait_for("lost llm", lambda: transitions(running, "edge-1")[0].lost == {"llm": "Stopped"})
    stages = {"plan", "redis", "slice", "report", "total_redis", "total_slice"}
    wait_for("metrics", lambda: hotplug(running) >= {(stage, "withdrawal") for stage in stages})
    running.agent("edge-1", "start", "qwen")
    wait_for("gained llm", lambda: transitions(running, "edge-1")[0].gained == ("llm",))
    wait_for("metrics", lambda: hotplug(running) >= {(stage, "gain") for stage in stages})


def test_repairs_of_changes_by_hand_have_events(running: Fleet) -> None:
    running.kubectl("delete", "nodepoolslice", "llm-0")
    wait_event(running, "llm", "SliceRepaired", "llm-0")
    running.kubectl("patch", "nodepools.hotpool.dev", PAIR_POOL, "--type=merge", "-p", '{"spec":{"minMembers":7}}')
    edited = wait_event(running, "speech", "PoolRepaired", PAIR_POOL)
    assert (edited["regarding"]["kind"], edited["type"]) == ("NodePoolGenerator", "Warning")
    running.kubectl("delete", "nodepools.hotpool.dev", PAIR_POOL)
    wait_event(running, "speech", "PoolRecreated", PAIR_POOL)
    running.kubectl("patch", "nodepools.hotpool.dev", "llm", "--type=merge", "-p", '{"spec":{"mode":"DryRun"}}')
    wait_event(running, "llm", "DryRunEmptied", "all 2 members")
    assert running.members("llm") == {}


def test_the_operator_may_create_events_and_nothing_else_with_them(fleet: Fleet) -> None:
    account = f"system:serviceaccount:{fleet.namespace}:hotpool-operator"

    def may(verb: str) -> str:
        try:
            return fleet.kubectl("auth", "can-i", verb, "events", "--as", account).strip()
        except RuntimeError:  # kubectl ends with 1 for no
            return "no"

    allowed = {verb for verb in ("get", "list", "watch", "create", "update", "patch", "delete") if may(verb) == "yes"}
    assert allowed == {"create"}
