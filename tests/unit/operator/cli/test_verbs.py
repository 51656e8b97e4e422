"""Decisions of `hotpool exclude`, `include`, `start` and `stop` (requirements A2, D2)."""

from typing import Any

import pytest
from tests.support.builders import condition, node_object, pool_object, report, service

from hotpool.cli.exclusion import exclude_nodes
from hotpool.cli.options import CommandError
from hotpool.cli.service_command import ServiceCommand, progress, with_command
from hotpool.common import exit_codes

START = ServiceCommand("edge-1", "qwen", "Running", "cli-1")


def node(*commands: dict[str, str], conditions: Any = (), **state: Any) -> dict[str, Any]:
    """Return a node with a supervised and an observed service, and commands in its spec."""
    supervised = service("qwen", "llm", **{"desired": "Running", "state": "Running"} | state)
    content = report(supervised, service("piper", "tts"))
    body = node_object("edge-1", content, conditions=list(conditions))
    return {**body, "spec": {"services": list(commands)}}


def entry(identity: str = "cli-1") -> dict[str, str]:
    return {"id": "qwen", "desired": "Running", "requestID": identity}


@pytest.mark.parametrize(
    ("before", "excluded", "after"),
    [
        ([], True, {"excludeNodes": ["edge-1"]}),
        (["edge-2"], True, {"excludeNodes": ["edge-2", "edge-1"]}),
        (["edge-1"], True, None),
        (["edge-2", "edge-1"], False, {"excludeNodes": ["edge-2"]}),
        (["other"], False, None),
    ],
)
def test_the_list_changes_by_one_node_and_only_if_it_must(
    before: list[str],
    excluded: bool,  # noqa: FBT001
    after: dict[str, Any] | None,
) -> None:
    assert exclude_nodes(pool_object("p", excludeNodes=before), "edge-1", excluded=excluded) == after


def test_a_node_that_is_not_excluded_is_named_with_a_similar_one_that_is() -> None:
    with pytest.raises(CommandError, match="edge-1 is not excluded from pool p; similar: edge-11") as error:
        exclude_nodes(pool_object("p", excludeNodes=["edge-11"]), "edge-1", excluded=False)
    assert error.value.code == exit_codes.NOT_FOUND


def test_a_generated_pool_is_refused_with_the_template_of_its_generator() -> None:
    generated = pool_object("speech-zh-en-1", generated={"by": "speech", "kind": "LanguagePair", "key": "zh-en"})
    for excluded in (True, False):
        with pytest.raises(CommandError, match=r"nodepoolgenerator speech .* spec\.template\.spec\.excludeNodes"):
            exclude_nodes(generated, "edge-1", excluded=excluded)


def test_a_command_replaces_the_one_to_the_same_service_and_keeps_the_others() -> None:
    other = {"id": "other", "desired": "Stopped", "requestID": "x"}
    assert with_command(node(entry("old"), other), START) == {"services": [other, entry()]}


@pytest.mark.parametrize(
    ("name", "code", "text"),
    [
        ("qwem", exit_codes.NOT_FOUND, "edge-1 has no service qwem; similar: qwen"),
        ("zebra", exit_codes.NOT_FOUND, "edge-1 has no service zebra; it has piper, qwen"),
        ("piper", exit_codes.REFUSED, "piper on edge-1 is observed: another program runs it"),
    ],
)
def test_a_service_that_takes_no_command_is_refused_before_anything_is_written(name: str, code: int, text: str) -> None:
    with pytest.raises(CommandError, match=text) as error:
        with_command(node(), ServiceCommand("edge-1", name, "Running", "cli-1"))
    assert error.value.code == code


def test_a_node_that_has_not_reported_has_no_service() -> None:
    with pytest.raises(CommandError, match="has no service qwen; it reports none"):
        with_command(node_object("edge-1"), START)


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ({"state": "Running"}, "waiting for the agent"),
        ({"state": "Running", "requestID": "older"}, "waiting for the agent"),
        ({"state": "Starting", "requestID": "cli-1"}, "qwen is Starting"),
        ({"state": "Running", "requestID": "cli-1"}, ""),
    ],
)
def test_the_command_waits_until_the_agent_reports_the_state_for_this_request(
    state: dict[str, Any], expected: str
) -> None:
    assert progress(node(entry(), **state), START) == expected


def test_an_agent_that_is_away_is_named_with_the_reason() -> None:
    offline = condition(status="Unknown", reason="Offline", message="no heartbeat for 4 intervals")
    text = progress(node(entry(), conditions=[offline]), START)
    assert text == "waiting for the agent, which does it when it is back: Offline, no heartbeat for 4 intervals"


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (node(entry("another"), requestID="cli-1"), "another command for qwen replaced this one"),
        (node(entry(), state="Failed", requestID="cli-1", lastError="exit code 1"), "qwen failed: exit code 1"),
        ({**node_object("edge-1", report()), "spec": {"services": [entry()]}}, "qwen has left the catalogue"),
    ],
)
def test_a_command_that_cannot_succeed_ends_with_the_reason(body: dict[str, Any], text: str) -> None:
    with pytest.raises(CommandError, match=text) as error:
        progress(body, START)
    assert error.value.code == exit_codes.NOT_YET
