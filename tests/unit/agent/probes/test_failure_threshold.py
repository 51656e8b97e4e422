"""Failure threshold of probes: a fixed number of failures in a row takes a service out (requirement A6)."""

from collections.abc import Sequence

import pytest

from hotpool_agent.probes.failure_threshold import FailureThreshold


def reached(threshold: FailureThreshold, results: Sequence[str]) -> list[bool]:
    """Return `is_reached` after each result: `+` success, `-` failure, `!` conclusive failure."""
    states = []
    for result in results:
        threshold = threshold.add(ok=result == "+", conclusive=result == "!")
        states.append(threshold.is_reached)
    return states


@pytest.mark.parametrize(
    ("results", "expected"),
    [
        ("---", [False, False, True]),
        ("--+--", [False] * 5),
        ("----+-", [False, False, True, True, False, False]),
        ("!+-", [True, False, False]),
        ("!-", [True, True]),
        ("-!", [False, True]),
    ],
)
def test_a_fixed_number_of_failures_in_a_row_or_a_conclusive_one_is_enough(results: str, expected: list[bool]) -> None:
    assert reached(FailureThreshold(3), results) == expected


def test_until_the_first_success_each_failure_is_enough() -> None:
    assert reached(FailureThreshold.initially_failed(3), "-+--") == [True, False, False, False]


def test_with_a_limit_of_one_each_failure_counts() -> None:
    assert reached(FailureThreshold(1), "+-+") == [False, True, False]
