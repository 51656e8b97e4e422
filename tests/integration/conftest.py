"""Fixtures of the flow tests: an API server with faults on demand, the command line, and nothing left behind."""

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
from tests.support.faulty_link import NAMES, Line, line
from tests.support.http_services import Plant, plant

from localfleet.ports import free_port


@pytest.fixture
async def api() -> AsyncIterator[FakeApi]:
    """An API server of the test's own."""
    async with fake_api() as server:
        yield server


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Issues certificates for the test."""
    return Authority(tmp_path / "pki")


@pytest.fixture
async def tls_api(authority: Authority) -> AsyncIterator[FakeApi]:
    """The same by TLS."""
    async with fake_api(tls=authority.context(authority.issue("server"))) as server:
        yield server


@pytest.fixture
def kubeconfig(api: FakeApi, tmp_path: Path) -> Path:
    """Leads to that API server."""
    return api.kubeconfig(tmp_path)


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


@pytest.fixture
async def way(tmp_path: Path) -> AsyncIterator[Line]:
    """A breakable way to an API server of the test's own."""
    async with line(tmp_path) as made:
        yield made


@pytest.fixture
async def works() -> AsyncIterator[Plant]:
    """Services to be observed, all of them up."""
    async with plant(*NAMES) as made:
        yield made
