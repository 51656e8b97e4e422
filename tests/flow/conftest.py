"""Fixtures of the agent's flow tests: a fake API server over HTTP, a free port, and nothing left behind."""

import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress

import psutil
import pytest
from tests.services.agent_run import FAKE
from tests.services.fake_api import FakeApi, fake_api

from localfleet.catalogue import free_port


@pytest.fixture
async def api() -> AsyncIterator[FakeApi]:
    """An API server of the test's own."""
    async with fake_api() as server:
        yield server


@pytest.fixture
def port() -> int:
    """A port that nobody listens on."""
    return free_port()


@pytest.fixture(autouse=True)
def no_process_left() -> Iterator[None]:
    """No test may leave a service behind; one that simulates a crash does, and it is ended here."""
    yield
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error, ProcessLookupError):
            if str(FAKE) in " ".join(child.cmdline()):
                os.killpg(os.getpgid(child.pid), signal.SIGKILL)
