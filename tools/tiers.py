"""`make test`: run the suite's tiers one after the other, then show the time of each and the ten slowest tests.

A tier is a target of the Makefile in the current folder. The first that fails ends the run. tests/budget.toml holds
the seconds that each may take: a tier above its budget is a warning; with CI=true, one above twice its budget fails.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Final
from xml.etree import ElementTree as ET

BUDGET: Final = Path("tests/budget.toml")
SLOWEST: Final = 10
LIMIT: Final = 2
"""A tier fails in CI above this multiple of its budget: less would make a busy machine a red build."""


@dataclass(frozen=True)
class Test:
    """A test case; `seconds` includes its fixtures."""

    name: str
    seconds: float


@dataclass(frozen=True)
class Tier:
    """A finished tier."""

    name: str
    code: int
    seconds: float
    tests: list[Test]


def main() -> int:
    """Run the tiers; return the exit code of the first that failed, else 1 if CI's limit was exceeded."""
    parser = argparse.ArgumentParser(prog="make test", description=__doc__.partition("\n")[0])
    parser.add_argument("tiers", nargs="+", metavar="TIER")
    names = parser.parse_args().tiers
    budget = tomllib.loads(BUDGET.read_text(encoding="utf-8"))["seconds"]
    done: list[Tier] = []
    with TemporaryDirectory(prefix="hotpool-tiers-") as folder:
        for name in names:
            done.append(run(name, Path(folder) / f"{name}.xml"))
            if done[-1].code:
                break
    print(report(done, budget))
    if done[-1].code:
        print(f"FAILED: make {done[-1].name}", file=sys.stderr)
        return done[-1].code
    return int(os.environ.get("CI") == "true" and bool(over(done, budget, LIMIT)))


def run(name: str, results: Path) -> Tier:
    """Run one target of the Makefile. Termination signals are forwarded, and the end is awaited."""
    environment = os.environ | {"PYTEST_ADDOPTS": f"{os.environ.get('PYTEST_ADDOPTS', '')} --junitxml={results}"}
    early_signals: list[int] = []
    process: subprocess.Popen[bytes] | None = None

    def forward(number: int, _frame: FrameType | None) -> None:
        if process:
            process.send_signal(number)
        else:
            early_signals.append(number)

    # A terminal sends Ctrl-C to the whole process group itself.
    signal.signal(signal.SIGINT, lambda *_: None)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, forward)
    started = time.monotonic()
    process = subprocess.Popen([os.environ.get("MAKE", "/usr/bin/make"), "--no-print-directory", name], env=environment)
    for early in early_signals:
        process.send_signal(early)
    code = process.wait()
    return Tier(name, abs(code), time.monotonic() - started, read(results))


def read(results: Path) -> list[Test]:
    """Return the test cases of a JUnit file; none where the tier runs no tests."""
    if not results.is_file():
        return []
    cases = ET.parse(results).iter("testcase")  # noqa: S314 - written by our own pytest.
    return [Test(f"{case.get('classname')}::{case.get('name')}", float(case.get("time", 0))) for case in cases]


def over(tiers: list[Tier], budget: dict[str, float], factor: float) -> list[Tier]:
    """Return the tiers that took more than `factor` times their budget."""
    return [tier for tier in tiers if tier.seconds > factor * budget[tier.name]]


def report(tiers: list[Tier], budget: dict[str, float]) -> str:
    """Return the table of tiers, the slowest tests, and a line for each tier above its budget."""
    lines = ["", f"{'tier':16}{'seconds':>8}{'budget':>8}{'tests':>7}"]
    lines += [f"{tier.name:16}{tier.seconds:8.0f}{budget[tier.name]:8.0f}{len(tier.tests) or '':>7}" for tier in tiers]
    lines += [f"{'total':16}{sum(tier.seconds for tier in tiers):8.0f}"]
    tests = sorted((test for tier in tiers for test in tier.tests), key=lambda test: -test.seconds)
    if tests:
        lines += ["", "slowest tests", *(f"{test.seconds:8.1f} s  {test.name}" for test in tests[:SLOWEST])]
    limit = {tier.name for tier in over(tiers, budget, LIMIT)}
    for tier in over(tiers, budget, 1):
        word = f"ERROR in CI: above {LIMIT} times" if tier.name in limit else "WARNING: above"
        lines.append(f"{word} its budget: {tier.name} ({tier.seconds:.0f} s of {budget[tier.name]:.0f} s)")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
