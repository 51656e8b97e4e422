"""A log that cannot be written stops nothing (requirement A12): full disks, pipes, lost terminals."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.support.agent_run import supervised, write_catalogue
from tests.support.fake_api import FakeApi

from localfleet.ports import free_port
from localfleet.process import ended_with_parent

AUTO = "  ready: {http: {path: /health}, periodSeconds: 0.05}\n  autoStart: true\n"


@contextmanager
def full_disk() -> Iterator[tuple[int, Callable[[], object]]]:
    with Path("/dev/full").open("wb") as disk:
        yield disk.fileno(), lambda: None


@contextmanager
def broken_pipe() -> Iterator[tuple[int, Callable[[], object]]]:
    """Provide a pipe to a program that ends, as `tee` does at Ctrl-C."""
    reader, writer = os.pipe()
    yield writer, lambda: os.close(reader)
    os.close(writer)


@contextmanager
def unread_pipe() -> Iterator[tuple[int, Callable[[], object]]]:
    """Provide a pipe that is full already: a write to it hangs."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with suppress(BlockingIOError):
        while os.write(writer, b"x" * 4096):
            pass
    os.set_blocking(writer, True)
    yield writer, lambda: None
    os.close(reader)
    os.close(writer)


@contextmanager
def lost_terminal() -> Iterator[tuple[int, Callable[[], object]]]:
    """Provide a terminal whose window is closed: the kernel sends SIGHUP, and writes fail."""
    master, slave = os.openpty()
    yield slave, lambda: os.close(master)
    os.close(slave)


async def start(api: FakeApi, folder: Path, environment: dict[str, str], errors: int) -> asyncio.subprocess.Process:
    """Run the agent with this standard error, in a session of its own whose terminal it is if it is one."""
    own = ("setsid", "--ctty") if os.isatty(errors) else ()
    arguments = ["run", "--catalogue", str(folder / "n1.yaml"), "--node", "n1", "--interval", "1", "--debounce", "0.1"]
    words = (*ended_with_parent(), *own, sys.executable, "-m", "hotpool_agent", *arguments)
    kubeconfig = ("--kubeconfig", str(api.kubeconfig(folder)))
    return await asyncio.create_subprocess_exec(
        *words, *kubeconfig, stdin=errors if own else None, stdout=errors, stderr=errors, env=environment
    )


def shown(api: FakeApi, identifier: str) -> dict[str, Any]:
    """Return the service in the stored report."""
    services = (api.report("n1") or {"services": []})["services"]
    return next((item for item in services if item["id"] == identifier), {"state": None, "pid": None})


@pytest.mark.parametrize("target", [full_disk, broken_pipe, unread_pipe, lost_terminal])
async def test_an_agent_whose_log_cannot_be_written_restarts_and_stops_services(
    api: FakeApi, tmp_path: Path, environment: dict[str, str], target: Any
) -> None:
    one, two = supervised("one", free_port(), more=AUTO), supervised("two", free_port(), more=AUTO)
    write_catalogue(tmp_path, one)
    with target() as (errors, fail):
        process = await start(api, tmp_path, environment, errors)
        await api.until(lambda: shown(api, "one")["state"] == "Running", seconds=60)
        write_catalogue(tmp_path, one + two)
        fail()
        crashed = shown(api, "one")["pid"]
        os.kill(crashed, signal.SIGKILL)
        await api.until(
            lambda: shown(api, "one")["state"] == "Running" and shown(api, "one")["pid"] != crashed, seconds=60
        )
        if target is lost_terminal:
            await api.until(lambda: shown(api, "two")["state"] == "Running", seconds=60)
        pids = [pid for name in ("one", "two") if (pid := shown(api, name)["pid"])]
        process.send_signal(signal.SIGINT)
        assert await asyncio.wait_for(process.wait(), 60) == 0
    report = api.report("n1") or {}
    assert (report["leaving"], shown(api, "one")["state"]) == (True, "Stopped")
    assert [pid for pid in pids if psutil.pid_exists(pid)] == []
