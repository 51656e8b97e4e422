"""How many failures in a row take a service out (requirement A6)."""

from collections.abc import Sequence

import pytest

from hotpool_agent.probes.failure_threshold import FailureThreshold


def outs(streak: FailureThreshold, answers: Sequence[str]) -> list[bool]:
    """Whether the service is out after each answer: `+` success, `-` failure, `!` failure that is a proof."""
    found = []
    for answer in answers:
        streak = streak.add(ok=answer == "+", proof=answer == "!")
        found.append(streak.is_reached)
    return found


@pytest.mark.parametrize(
    ("answers", "out"),
    [
        ("---", [False, False, True]),
        ("--+--", [False] * 5),
        ("----+-", [False, False, True, True, False, False]),
        ("!+-", [True, False, False]),
        ("!-", [True, True]),
        ("-!", [False, True]),
    ],
)
def test_a_fixed_number_of_failures_in_a_row_or_one_proof(answers: str, out: list[bool]) -> None:
    assert outs(FailureThreshold(3), answers) == out


def test_until_the_first_success_each_failure_is_enough() -> None:
    assert outs(FailureThreshold.initially_failed(3), "-+--") == [True, False, False, False]


def test_a_limit_of_one_forgives_nothing() -> None:
    assert outs(FailureThreshold(1), "+-+") == [False, True, False]
