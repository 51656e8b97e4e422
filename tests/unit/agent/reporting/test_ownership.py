"""Ownership of the stored report, and whether this agent may replace it (requirements B7, B12)."""

import pytest

from hotpool_agent.reporting.ownership import StoredReport, must_observe, parse_stored


def stored(**changes: object) -> StoredReport:
    values = {"instance": "me", "session": "before", "epoch": 4, "sequence": 9, "leaving": False, "interval": 15}
    return StoredReport(**(values | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("report", "own_epoch", "expected"),
    [
        (stored(session="now"), 4, False),
        (stored(session="now", instance="other"), 4, False),
        (stored(), 0, False),
        (stored(epoch=5), 4, True),
        (stored(instance="other"), 0, True),
        (stored(instance="other"), 4, True),
        (stored(instance="other", leaving=True), 0, False),
    ],
)
def test_the_agent_of_a_stored_report_is_observed_if_it_may_be_another_live_one(
    report: StoredReport, own_epoch: int, *, expected: bool
) -> None:
    assert must_observe(report, "me", "now", own_epoch) is expected


@pytest.mark.parametrize("value", [None, {}, {"status": None}, {"status": {}}, {"status": {"report": None}}])
def test_an_object_without_a_report_has_no_stamps(value: dict[str, object] | None) -> None:
    assert parse_stored(value) is None


def test_the_stamps_are_read_from_the_report() -> None:
    report = {"instance": "i", "session": "s", "epoch": 2, "sequence": 3, "leaving": True, "intervalSeconds": 5}
    assert parse_stored({"status": {"report": report}}) == StoredReport("i", "s", 2, 3, leaving=True, interval=5)
