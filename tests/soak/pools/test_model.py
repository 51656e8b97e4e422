"""Thousands of random scripts of operators against the oracle, in simulated time; no cluster. `make soak-pools`.

HOTPOOL_SOAK_CASES is the number of scripts (default 2000), HOTPOOL_SOAK_FIRST the first seed, HOTPOOL_SOAK_STEPS the
number of steps of each.

Requirements D1, D8.
"""

import os

import pytest
from tests.model.run import check

CASES = int(os.environ.get("HOTPOOL_SOAK_CASES", "2000"))
FIRST = int(os.environ.get("HOTPOOL_SOAK_FIRST", "1000"))
STEPS = int(os.environ.get("HOTPOOL_SOAK_STEPS", "60"))
_FAILURES_SHOWN = 5


@pytest.mark.timeout(6 * 3600)
def test_membership_equals_that_of_the_oracle_in_thousands_of_scripts(capsys: pytest.CaptureFixture[str]) -> None:
    failures: list[str] = []
    for number, seed in enumerate(range(FIRST, FIRST + CASES), 1):
        if failure := check(seed, STEPS):
            failures.append(failure)
        with capsys.disabled():
            print(f"\rseed {seed}: {number} of {CASES} cases, {len(failures)} wrong", end="", flush=True)  # noqa: T201
        if len(failures) == _FAILURES_SHOWN:
            break
    assert not failures, "\n\n".join(failures)
