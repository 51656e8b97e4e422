"""Whose report is stored, and what that allows (behaviour B7, B12)."""

import pytest

from hotpool_agent.reporting.ownership import Right, Stored, right, stored_in


def stored(**changes: object) -> Stored:
    values = {"instance": "me", "session": "before", "epoch": 4, "sequence": 9, "leaving": False, "interval": 15}
    return Stored(**(values | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("what", "own_epoch", "expected"),
    [
        (None, 0, Right.CLAIM),
        (None, 3, Right.CLAIM),
        (stored(session="now"), 4, Right.CONTINUE),
        (stored(), 0, Right.CLAIM),
        (stored(epoch=5), 4, Right.WATCH),
        (stored(instance="other"), 0, Right.WATCH),
        (stored(instance="other"), 4, Right.WATCH),
        (stored(instance="other", leaving=True), 0, Right.CLAIM),
    ],
)
def test_b12_what_the_stored_report_allows(what: Stored | None, own_epoch: int, expected: Right) -> None:
    assert right(what, "me", "now", own_epoch) is expected


@pytest.mark.parametrize("value", [None, {}, {"status": None}, {"status": {}}, {"status": {"report": None}}])
def test_b7_no_report_is_no_claim(value: dict[str, object] | None) -> None:
    assert stored_in(value) is None


def test_b7_the_stamps_are_read_from_the_report() -> None:
    report = {"instance": "i", "session": "s", "epoch": 2, "sequence": 3, "leaving": True, "intervalSeconds": 5}
    assert stored_in({"status": {"report": report}}) == Stored("i", "s", 2, 3, leaving=True, interval=5)
