"""The unit tier: no I/O beyond the process, 2 s for each test as a hang guard, the same examples on every run."""

import pytest
from hypothesis import settings

settings.register_profile("repeatable", derandomize=True, deadline=None, max_examples=60)
settings.load_profile("repeatable")

_GUARD = 20


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(pytest.mark.timeout(_GUARD))
