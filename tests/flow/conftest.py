"""Fixtures of the flow tests: an API server with faults on demand, and the command line with short times."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.services.agent_process import Command, Result, finish, spawn
from tests.services.fake_api import FakeApi, fake_api


@pytest.fixture
async def api() -> AsyncIterator[FakeApi]:
    async with fake_api() as server:
        yield server


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """HOTPOOL_AGENT_* short times, and a state folder of the test's own."""
    return os.environ | {
        "HOTPOOL_AGENT_STATE_DIR": str(tmp_path / "state"),
        "HOTPOOL_AGENT_BACKOFF_SECONDS": "0.05",
        "HOTPOOL_AGENT_LISTEN": "127.0.0.1:0",
        "COLUMNS": "80",
    }


@pytest.fixture
def hotpool_agent(environment: dict[str, str]) -> Command:
    async def run(*arguments: str) -> Result:
        return await finish(await spawn(environment, *arguments))

    return run
