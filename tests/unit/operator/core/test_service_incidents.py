"""Failures, flapping and refused commands from the difference of two states of a node (requirement F8)."""

import pytest
from tests.support.builders import Json, node, node_object, report, service, stopped

from hotpool.core.model import Kind, Node
from hotpool.core.service_incidents import IncidentQueue, incidents
from hotpool.kube.decode import decode

RUNS = service("w", "asr", desired="Running")
FAILED = {**RUNS, "state": "Failed", "since": "t1", "lastError": "killed by SIGKILL"}
OBSERVED = service("o", "llm")


def found(before: Json | None, after: Json) -> list[tuple[str, str, str]]:
    """Return reason, service and message of the incidents between two reports."""
    between = incidents(node("n", before), node("n", after))
    return [(item.reason, item.service, item.message) for item in between]


@pytest.mark.parametrize(
    ("before", "after", "failed"),
    [
        (RUNS, FAILED, True),
        (RUNS, {**FAILED, "state": "Starting"}, False),
        (FAILED, FAILED, False),
        (FAILED, {**FAILED, "lastError": "killed by SIGKILL; last output: out of memory"}, False),
        (FAILED, {**FAILED, "since": "t2"}, True),
        (FAILED, {**RUNS, "restarts": 1, "lastError": "x"}, False),
        ({**RUNS, "restarts": 1}, {**RUNS, "restarts": 2}, True),
        (RUNS, {**RUNS, "restarts": 1}, True),
        ({**RUNS, "restarts": 2}, RUNS, False),
        (RUNS, stopped("w", "asr"), False),
        (service("other", "asr"), {**RUNS, "restarts": 4}, False),
    ],
)
def test_a_failure_is_found_once_even_between_reports(before: Json, after: Json, failed: bool) -> None:  # noqa: FBT001
    assert [item[:2] for item in found(report(before), report(after))] == [("ServiceFailed", "w")] * failed


def test_the_first_report_of_a_node_has_the_services_that_are_failed_now() -> None:
    assert found(None, report(FAILED, {**OBSERVED, "restarts": 3})) == [("ServiceFailed", "w", "killed by SIGKILL")]


def test_a_type_that_begins_to_flap_is_found_with_its_services() -> None:
    content = report({**RUNS, "restarts": 3})
    flapping = {**content, "capabilities": [{"type": "asr", "ready": False, "reason": "Flapping", "services": []}]}
    assert [item[:2] for item in found(content, flapping)] == [("ServiceFlapping", "w")]
    assert found(flapping, flapping) == []


def with_commands(*commands: Json, truncated: int = 0) -> Node:
    body = node_object("n", report(RUNS, OBSERVED, truncated=truncated))
    decoded = decode(Kind.NODE, {**body, "spec": {"services": list(commands)}})
    assert isinstance(decoded, Node)
    return decoded


def test_commands_that_no_agent_can_carry_out_are_found_once() -> None:
    unknown, observed = ({"id": name, "desired": "Running"} for name in ("whisper", "o"))
    usual = with_commands({"id": "w", "desired": "Stopped", "requestID": "1"})
    refused = with_commands(unknown, observed)
    assert [(item.reason, item.service) for item in incidents(usual, refused)] == [
        ("CommandRefused", "whisper"),
        ("CommandRefused", "o"),
    ]
    assert list(incidents(refused, refused)) == []
    again = with_commands({**unknown, "requestID": "2"})
    assert [item.service for item in incidents(refused, again)] == ["whisper"]
    assert with_commands(unknown, truncated=1).refused == (), "the report may have left the service out"
    minimal = node_object("n", report()) | {"spec": {"services": [unknown]}}
    assert getattr(decode(Kind.NODE, minimal), "refused") == ()  # noqa: B009 - of a Node or of an error.
    assert with_commands({"id": 7}, "x", {}).refused == ()  # type: ignore[arg-type]


def test_a_queue_has_a_bound_and_is_emptied_once() -> None:
    queue, healthy, failed = IncidentQueue(), node("n", report(RUNS)), node("n", report(FAILED))
    for _ in range(10_001):
        queue.compare(healthy, failed)
    assert len(queue.take()) == 10_000
    assert queue.take() == []
