"""Ejected services in `why` and `top` (E8, F2)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from tests.support.builders import condition, node_object, pool_object, report, requires, service, slice_object

from hotpool.cli import json_output
from hotpool.cli.fleet_reader import FleetSnapshot
from hotpool.cli.render.tables import print_line
from hotpool.cli.render.top import tables
from hotpool.cli.render.top_rows import Rows, node_rows, pool_rows
from hotpool.cli.render.why import show_node
from hotpool.core.model import Kind
from hotpool.lookup import Ejection

NOW = datetime(2026, 11, 30, 12, 0, tzinfo=UTC)
TIMES = {"since": (NOW - timedelta(seconds=40)).timestamp(), "until": (NOW + timedelta(seconds=20)).timestamp()}
WHISPER = Ejection("edge-1", "whisper", "asr", "zh-en", ("one", "two", "three"), **TIMES)
WHOLE = Ejection("edge-2", None, None, "zh-en", ("one",), since=TIMES["since"], until=TIMES["since"] + 30)
OF_ANOTHER_TYPE = Ejection("edge-1", "gemma", "llm", "llm", ("one",), **TIMES)


@pytest.fixture
def snapshot() -> FleetSnapshot:
    found = FleetSnapshot()
    members = [{"node": name, "state": "Ready", "since": "2026-11-30T11:00:00Z"} for name in ("edge-1", "edge-2")]
    for name in ("edge-1", "edge-2"):
        assert found.add(Kind.NODE, node_object(name, report(service("whisper", "asr")), conditions=[condition()]))
    assert found.add(Kind.POOL, pool_object("zh-en", requires=requires("asr")))
    assert found.add(Kind.SLICE, slice_object("zh-en", 0, members=members))
    return found


def test_why_of_a_node_says_by_how_many_sources_and_when_it_is_tried(
    snapshot: FleetSnapshot, capsys: pytest.CaptureFixture[str]
) -> None:
    show_node(snapshot.facts("edge-1"), [], [], [WHISPER, WHOLE], NOW)
    text = " ".join(capsys.readouterr().out.split())
    assert "Service whisper (asr) is ejected by 3 sources, since 40 s: picked last, and tried in 20 s." in text
    assert "The node is ejected by 1 source, since 40 s: picked last, and tried once a second." in text


def test_json_of_why_has_ejections_with_rfc_3339_times(snapshot: FleetSnapshot) -> None:
    document = json_output.node_explanation(snapshot.facts("edge-1"), [], [], [WHISPER])
    assert document["ejections"] == [
        {
            "node": "edge-1",
            "service": "whisper",
            "type": "asr",
            "pool": "zh-en",
            "sources": ("one", "two", "three"),
            "since": "2026-11-30T11:59:20.000Z",
            "until": "2026-11-30T12:00:20.000Z",
        }
    ]


def test_top_has_a_column_of_nodes_and_a_note_of_pools_with_redis_only(
    snapshot: FleetSnapshot, capsys: pytest.CaptureFixture[str]
) -> None:
    ejections = [WHISPER, OF_ANOTHER_TYPE, WHOLE]
    nodes, pools = node_rows(snapshot, [], NOW, ejections), pool_rows(snapshot, {}, ejections)
    assert [row.ejected for row in nodes] == [("gemma", "whisper"), ("-",)]
    assert [row.ejected for row in pools] == [2]
    print_line(tables(Rows(nodes, pools), limit=None, live=False))
    text = capsys.readouterr().out
    assert "EJECTED" in text
    assert "2 ejected" in text
    nodes, pools = node_rows(snapshot, [], NOW), pool_rows(snapshot, {})
    assert json_output.top(Rows(nodes, pools))["nodes"][0]["ejected"] is None
    print_line(tables(Rows(nodes, pools), limit=None, live=False))
    assert "jected" not in capsys.readouterr().out.replace("EJECTED", "jected")
