"""`tools/tiers.py`: order, exit codes, budgets, and signals that reach the tests."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import tiers

PROGRAM = [sys.executable, str(Path(tiers.__file__))]
JUNIT = """<testsuites><testsuite>
<testcase classname="tests.unit.test_a" name="test_fast" time="0.010"/>
<testcase classname="tests.unit.test_b" name="test_slow" time="7.500"/>
</testsuite></testsuites>"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A Makefile with four tiers, one of which writes results as pytest does, and their budgets."""
    (tmp_path / "results.xml").write_text(JUNIT)
    (tmp_path / "Makefile").write_text(
        "lint:\n\t@true\n"
        "unit:\n\t@cp results.xml $${PYTEST_ADDOPTS##*--junitxml=}\n"
        "broken:\n\t@exit 3\n"
        "endless:\n\t@echo started; exec sleep 600\n"
    )
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "budget.toml").write_text("[seconds]\nlint = 60\nunit = 60\nbroken = 60\nendless = 60\n")
    return tmp_path


def run(project: Path, *names: str, ci: bool = False) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"CI": "true" if ci else ""}
    command = [*PROGRAM, *names]
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)


def test_each_tier_and_the_slowest_tests_are_shown(project: Path) -> None:
    done = run(project, "lint", "unit")
    lines = done.stdout.splitlines()
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[0] for line in lines[1:5]] == ["tier", "lint", "unit", "total"]
    assert [line.split()[-1] for line in lines[-2:]] == ["tests.unit.test_b::test_slow", "tests.unit.test_a::test_fast"]


def test_the_first_failed_tier_ends_the_run_with_an_error(project: Path) -> None:
    done = run(project, "broken", "unit")
    assert (done.returncode, "unit" in done.stdout) == (2, False)
    assert "make broken" in done.stderr


@pytest.mark.parametrize(("budget", "ci", "code"), [(1e-9, True, 1), (1e-9, False, 0), (60, True, 0)])
def test_only_ci_fails_above_twice_the_budget(project: Path, budget: float, code: int, *, ci: bool) -> None:
    (project / "tests" / "budget.toml").write_text(f"[seconds]\nlint = {budget}\n")
    done = run(project, "lint", ci=ci)
    assert (done.returncode, "above" in done.stdout) == (code, budget < 1)


def test_a_tier_between_one_and_two_times_its_budget_is_a_warning() -> None:
    done = [tiers.Tier("unit", 0, seconds, []) for seconds in (10.0, 15.0, 21.0)]
    assert tiers.over(done, {"unit": 10.0}, 1) == done[1:]
    assert tiers.over(done, {"unit": 10.0}, tiers.LIMIT) == done[2:]


def test_sigterm_ends_the_tier_with_an_error(project: Path) -> None:
    with subprocess.Popen([*PROGRAM, "endless"], cwd=project, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "started\n"
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
    assert process.returncode not in {0, -signal.SIGTERM}
