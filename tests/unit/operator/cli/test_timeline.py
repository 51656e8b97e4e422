"""Merging of Events, history and log lines by `hotpool events` (requirement F8)."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from hotpool.cli.timeline import Entry, Source, Subject, from_events, from_log, from_redis, merge
from hotpool.lookup import Transition

EVERYTHING = Subject()
EARLY = datetime(2026, 11, 30, tzinfo=UTC)
LEFT = {"event": "left", "pool": "llm", "node": "edge-1", "state": None, "former": "Ready", "reason": "TypeNotReady"}


def line(at: str, **fields: Any) -> str:
    return json.dumps({"level": "info", **fields, "timestamp": f"2026-11-30T{at}Z"})


def body(kind: str, name: str, note: str, at: str, version: str = "hotpool.dev/v1alpha1") -> dict[str, Any]:
    regarding = {"apiVersion": version, "kind": kind, "name": name}
    return {"metadata": {}, "regarding": regarding, "eventTime": f"2026-11-30T{at}Z", "reason": "R", "note": note}


def brief(source: Source) -> list[tuple[str, str, str, str]]:
    return [(entry.kind, entry.name, entry.reason, entry.message) for entry in source.entries]


def test_each_kind_of_log_line_is_one_entry() -> None:
    lines = [
        line("10:00:00", event="leading", term=3, identity="op-1"),
        line("10:00:01", **{**LEFT, "event": "joined", "state": "Ready", "former": None}, since="s"),
        line("10:00:02", **{**LEFT, "event": "changed", "state": "Draining", "reason": "Draining"}, since="s"),
        line("10:00:03", **LEFT, since="2026-11-30T09:00:00.000000Z"),
        line("10:00:04", event="service failed", node="edge-1", service="q", type="llm", reason="ServiceFailed",
             message="killed by SIGKILL", restarts=2),
        line("10:00:05", event="pool deleted", pool="old", members=3),
        line("10:00:06", event="detail", level="debug"),
    ]  # fmt: skip
    assert brief(from_log(lines, EVERYTHING, EARLY)) == [
        ("operator", "", "leading", "term 3, identity op-1"),
        ("pool", "llm", "joined", "edge-1 as Ready"),
        ("pool", "llm", "changed", "edge-1: Ready -> Draining (Draining)"),
        ("pool", "llm", "left", "edge-1: TypeNotReady; was Ready, in since 2026-11-30T09:00:00"),
        ("node", "edge-1", "ServiceFailed", "q: killed by SIGKILL (2 restarts)"),
        ("pool", "old", "pool deleted", "pool old, members 3"),
    ]


def test_a_log_with_prefixes_and_garbage_is_read_and_what_is_skipped_is_counted() -> None:
    lines = ["[pod/x] " + line("10:00:00", **LEFT), "\n", "Traceback", "{", "{}", '{"event": 1, "timestamp": 2}', "[1]"]
    source = from_log(lines, EVERYTHING, EARLY)
    assert len(source.entries) == 1
    assert source.problem == "5 lines are not of the operator's JSON log"
    late = datetime(2026, 12, 1, tzinfo=UTC)
    assert from_log([line("10:00:00", **LEFT)], EVERYTHING, late).entries == []
    assert from_log([line("10:00:00", **LEFT)], EVERYTHING, late).reaches == datetime(2026, 11, 30, 10, tzinfo=UTC)


@pytest.mark.parametrize(
    ("subject", "count"),
    [
        (Subject("edge-1"), 2),
        (Subject("llm", frozenset({"llm"})), 2),
        (Subject("llm", frozenset({"asr"})), 1),
        (Subject("edge-2"), 0),
    ],
)
def test_lines_of_a_node_and_of_a_pool_are_chosen_by_name_and_required_type(subject: Subject, count: int) -> None:
    failure = line("10:00:01", event="service failed", node="edge-1", service="q", type="llm", reason="ServiceFailed")
    assert len(from_log([line("10:00:00", **LEFT), failure], subject, EARLY).entries) == count


def test_events_of_others_are_left_out_and_those_of_a_pool_that_name_the_node_are_not() -> None:
    bodies = [
        body("NodePool", "llm", "2 left (Offline 2) [edge-1, edge-2]", "10:00:00"),
        body("NodeCapability", "edge-1", "no heartbeat", "10:00:01"),
        body("NodeCapability", "edge-10", "no heartbeat", "10:00:02"),
        body("Pod", "edge-1", "pulled", "09:00:00", "v1"),
        body("Lease", "hotpool-operator", "leads with term 1", "10:00:03", "coordination.k8s.io/v1"),
    ]
    source = from_events(bodies, Subject("edge-1"))
    assert [(entry.kind, entry.name) for entry in source.entries] == [("pool", "llm"), ("node", "edge-1")]
    assert source.reaches == datetime(2026, 11, 30, 9, tzinfo=UTC)
    assert [entry.kind for entry in from_events(bodies, EVERYTHING).entries] == ["pool", "node", "node", "operator"]
    assert from_events([], EVERYTHING).reaches is None


def test_the_history_of_a_pool_is_that_of_the_types_that_it_requires() -> None:
    histories = {
        "edge-1": [Transition("2026-11-30T10:00:00Z", lost={"llm": "Failed"})],
        "edge-2": [Transition("2026-11-30T10:00:01Z", "Live", "Suspect"), Transition("never")],
    }
    assert brief(from_redis(histories, Subject("p", frozenset({"llm"})))) == [
        ("node", "edge-1", "TypesChanged", "can no longer serve llm (Failed)")
    ]
    assert [entry.name for entry in from_redis(histories, EVERYTHING).entries] == ["edge-1", "edge-2"]


def test_entries_are_merged_by_time_since_the_beginning() -> None:
    def entry(minute: int) -> Entry:
        return Entry(datetime(2026, 11, 30, 10, minute, tzinfo=UTC), "Log", "operator", "", "x", "")

    sources = [Source("Log", [entry(1), entry(5)]), Source("Event", [entry(3), entry(0)])]
    merged = merge(sources, datetime(2026, 11, 30, 10, 1, tzinfo=UTC))
    assert [item.time.minute for item in merged] == [1, 3, 5]
