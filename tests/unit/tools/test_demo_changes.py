"""Changes on the demo's screen: what the watches deliver, in any order."""

from datetime import UTC, datetime
from typing import Any, cast

from demo.change_watcher import Change, Observer


def take_report(seen: Observer, at: float, ready: list[str]) -> None:
    """Deliver a report of edge-1."""
    time = datetime.fromtimestamp(at, UTC).isoformat()
    report = {"time": time, "services": [], "capabilities": [{"type": "asr", "services": ready}]}
    seen.take_node({"metadata": {"name": "edge-1"}, "status": {"report": report}}, at + 0.5, gone=False)


def take_members(seen: Observer, at: float, *nodes: str) -> None:
    """Deliver the slice of pool zh-en."""
    metadata = {"name": "zh-en-0", "labels": {"hotpool.dev/pool": "zh-en"}}
    members = [{"node": node, "state": "Ready"} for node in nodes]
    seen.take_slice({"metadata": metadata, "members": members}, at, gone=False)


def test_a_slice_that_arrives_before_its_report_belongs_to_that_report() -> None:
    seen = Observer(cast("Any", None))
    take_members(seen, 99.0, "edge-1")
    take_report(seen, 98.0, ["whisper"])
    take_members(seen, 100.1)
    take_report(seen, 100.0, [])
    take_members(seen, 105.2, "edge-1")
    take_report(seen, 105.0, ["whisper"])
    stop, start = seen.changes
    pools = frozenset({"zh-en"})
    assert stop == Change("edge-1", 100.0, frozenset({"whisper"}), frozenset(), 100.5, slices=100.1, pools=pools)
    assert start == Change("edge-1", 105.0, frozenset(), frozenset({"whisper"}), 105.5, slices=105.2, pools=pools)
