"""Fixtures of the integration tests: an API server with faults on demand, the command line, and clean-up."""

import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from tests.support.agent_process import Command, Result, finish, spawn
from tests.support.agent_run import FAKE
from tests.support.certificates import Authority
from tests.support.fake_api import FakeApi, fake_api
from tests.support.faulty_link import SERVICE_NAMES, FaultyLink, faulty_link
from tests.support.http_services import HttpServices, http_services

from localfleet.ports import free_port


@pytest.fixture
async def api() -> AsyncIterator[FakeApi]:
    """An API server of the test's own."""
    async with fake_api() as server:
        yield server


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """A certificate authority of the test's own."""
    return Authority(tmp_path / "pki")


@pytest.fixture
async def tls_api(authority: Authority) -> AsyncIterator[FakeApi]:
    """An API server of the test's own, over TLS."""
    async with fake_api(tls=authority.context(authority.issue("server"))) as server:
        yield server


@pytest.fixture
def kubeconfig(api: FakeApi, tmp_path: Path) -> Path:
    """A kubeconfig for that API server."""
    return api.kubeconfig(tmp_path)


@pytest.fixture
def port() -> int:
    """A free port."""
    return free_port()


@pytest.fixture(autouse=True)
def no_process_left() -> Iterator[None]:
    """Kill the services that a test left running, as one that simulates a crash does."""
    yield
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error, ProcessLookupError):
            if str(FAKE) in " ".join(child.cmdline()):
                os.killpg(os.getpgid(child.pid), signal.SIGKILL)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """An environment with HOTPOOL_AGENT_* for short times and a state folder of the test's own."""
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


@pytest.fixture
async def link(tmp_path: Path) -> AsyncIterator[FaultyLink]:
    """A connection that can be broken, to an API server of the test's own."""
    async with faulty_link(tmp_path) as running:
        yield running


@pytest.fixture
async def observed() -> AsyncIterator[HttpServices]:
    """Services that the agent observes, all of them up."""
    async with http_services(*SERVICE_NAMES) as running:
        yield running
