"""Ownership of the stored report, and whether this agent may replace it (requirements B7, B12)."""

import pytest

from hotpool_agent.reporting.ownership import OwnershipDecision, StoredReport, decide, parse_stored


def stored(**changes: object) -> StoredReport:
    values = {"instance": "me", "session": "before", "epoch": 4, "sequence": 9, "leaving": False, "interval": 15}
    return StoredReport(**(values | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("report", "own_epoch", "expected"),
    [
        (None, 0, OwnershipDecision.CLAIM),
        (None, 3, OwnershipDecision.CLAIM),
        (stored(session="now"), 4, OwnershipDecision.CONTINUE),
        (stored(), 0, OwnershipDecision.CLAIM),
        (stored(epoch=5), 4, OwnershipDecision.WATCH),
        (stored(instance="other"), 0, OwnershipDecision.WATCH),
        (stored(instance="other"), 4, OwnershipDecision.WATCH),
        (stored(instance="other", leaving=True), 0, OwnershipDecision.CLAIM),
    ],
)
def test_the_stored_report_decides(report: StoredReport | None, own_epoch: int, expected: OwnershipDecision) -> None:
    assert decide(report, "me", "now", own_epoch) is expected


@pytest.mark.parametrize("value", [None, {}, {"status": None}, {"status": {}}, {"status": {"report": None}}])
def test_an_object_without_a_report_has_no_stamps(value: dict[str, object] | None) -> None:
    assert parse_stored(value) is None


def test_the_stamps_are_read_from_the_report() -> None:
    report = {"instance": "i", "session": "s", "epoch": 2, "sequence": 3, "leaving": True, "intervalSeconds": 5}
    assert parse_stored({"status": {"report": report}}) == StoredReport("i", "s", 2, 3, leaving=True, interval=5)
