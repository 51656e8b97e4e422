"""Commands and annotations without effect, from the wire to their condition (requirements A2, D11)."""

from typing import Any

import pytest
from tests.support.builders import condition, generator_object, node_object, pool_object, report, service

from hotpool.cli.fleet_reader import FleetSnapshot
from hotpool.core.model import Generator, Kind, Node, Pool
from hotpool.core.planning.pool_plan import plan_node, plan_pool
from hotpool.core.pool_membership import PoolMembership
from hotpool.kube.decode import decode

SERVICES = [service("qwen", "llm", desired="Running"), service("piper", "tts")]


def node(*ids: Any, conditions: Any = (), **more: Any) -> Node:
    """Return a node with a supervised and an observed service, and commands to these services."""
    body = node_object("edge-1", report(*SERVICES, **more), conditions=list(conditions))
    commands = [{"id": item, "desired": "Running"} for item in ids]
    found = decode(Kind.NODE, {**body, "spec": {"services": commands}})
    assert isinstance(found, Node)
    return found


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ((), ""),
        (("qwen",), ""),
        (("qwem",), "there is no service qwem (similar: qwen)"),
        (("zebra",), "there is no service zebra"),
        (("piper", "qwen"), "piper is observed: another program runs it"),
        ((7, None), ""),
        (tuple(f"s{n}" for n in range(7)), "; ".join(f"there is no service s{n}" for n in range(5)) + "; and 2 more"),
    ],
)
def test_a_command_to_no_or_an_observed_service_is_named(ids: tuple[Any, ...], expected: str) -> None:
    assert node(*ids).ignored_commands == expected


def test_nothing_is_said_while_the_report_may_lack_services() -> None:
    assert node("zebra", truncated=1).ignored_commands == ""
    assert node("zebra", services=[]).ignored_commands == ""


def condition_of(found: Node) -> tuple[str, str] | None:
    view = FleetSnapshot()
    view.nodes["edge-1"] = found
    planned = plan_node(view.views()["edge-1"], "2026-11-30T12:00:00Z").conditions
    return next(((item.status, item.message) for item in planned if item.type == "CommandIgnored"), None)


def test_the_condition_of_the_node_names_it_until_it_is_gone() -> None:
    assert condition_of(node("qwen")) is None
    assert condition_of(node("zebra")) == ("True", "spec.services: there is no service zebra")
    stored = [condition("CommandIgnored", "True", "NoSuchService")]
    assert condition_of(node("qwen", conditions=stored)) == ("False", "")


@pytest.mark.parametrize(("value", "ignored"), [("true", False), ("false", False), ("", False), ("True", True)])
def test_an_annotation_paused_other_than_true_is_a_condition(value: str, ignored: bool) -> None:  # noqa: FBT001
    for kind, body in ((Kind.POOL, pool_object("p")), (Kind.GENERATOR, generator_object("p"))):
        body["metadata"]["annotations"] = {"hotpool.dev/paused": value}
        found = decode(kind, body)
        assert isinstance(found, Pool | Generator)
        assert (found.paused, bool(found.pause_problem)) == (value == "true", ignored)
        if isinstance(found, Pool):
            planned = plan_pool(PoolMembership(found), {}, {}, 0.0, "2026-11-30T12:00:00Z").status.conditions
            assert ("PauseIgnored" in {item.type for item in planned}) is ignored
