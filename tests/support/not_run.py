"""Tests that a machine does not allow: they pass, and the end of the test run names them."""

from typing import Final

import pytest

_NAME: Final = "not run"


def not_run(request: pytest.FixtureRequest, reason: str) -> None:
    """Have the end of the run print NOT RUN, the test and the reason."""
    request.node.user_properties.append((_NAME, reason))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the tests that did not run. With several workers the properties arrive with the reports."""
    for report in terminalreporter.getreports("passed"):
        for name, reason in report.user_properties:
            if name == _NAME:
                terminalreporter.write_line(f"NOT RUN: {report.nodeid}: {reason}", yellow=True)
