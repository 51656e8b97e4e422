"""The unit tier: no I/O beyond the process, a hang guard for each test, the same examples on every run."""

from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("repeatable", derandomize=True, deadline=None, max_examples=60, stateful_step_count=30)
settings.load_profile("repeatable")

_GUARD = 30
_LONG_GUARD = 120
"""Seconds for properties, which run many examples, and for tests that start another process. A guard against a hang,
not a measurement: other processes may load the machine."""
_PURE = ("operator/core", "operator/kube", "operator/controllers")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if not item.path.is_relative_to(here):
            continue
        function = getattr(item, "obj", None)
        many = getattr(function, "is_hypothesis_test", False) or item.name == "runTest"
        pure = str(item.path.relative_to(here)).startswith(_PURE)
        item.add_marker(pytest.mark.timeout(_GUARD if pure and not many else _LONG_GUARD))
