"""A stop leaves nothing of a service (requirement A9): real daemons and workers that left their group and session."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest
from tests.support.agent_run import agent_running, eventually
from tests.support.fake_api import FakeApi

from hotpool_agent.service_manager import CommandError
from hotpool_agent.services import members, process, process_table
from hotpool_agent.services.controller import ServiceController
from hotpool_agent.services.process import Process
from hotpool_agent.services.process_table import ProcessEntry, ProcessTable
from localfleet.kind import REPOSITORY

WORKERS = REPOSITORY / "tests" / "support" / "samples" / "workers.py"


def entry(kind: str, file: Path, more: str = "") -> str:
    return (
        f"- {{id: s, type: asr, preStopSeconds: 0, {more} "
        f"run: {{command: [{sys.executable}, {WORKERS}, {kind}, {file}]}}}}\n"
    )


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def worker(file: Path) -> int:
    """Return the pid of the process that the service created, or 0 before that."""
    return int(file.read_text(encoding="ascii")) if file.exists() else 0


def knows(service: ServiceController, pid: int) -> bool:
    """Return True if the agent knows that this process belongs to the service."""
    process = service._process  # noqa: SLF001
    return isinstance(process, Process) and any(key[0] == pid for key in process.members._known)  # noqa: SLF001


def restarted(service: ServiceController, pid: int) -> bool:
    """Return True if the service runs in another process."""
    return service.machine.pid not in {None, pid}


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Path]:
    """The file in which the service writes the worker's pid; a worker that is left is killed."""
    file = tmp_path / "worker"
    yield file
    if (pid := worker(file)) and alive(pid):
        os.kill(pid, signal.SIGKILL)


def test_a_process_that_replaces_its_program_keeps_its_mark(tmp_path: Path) -> None:
    """Without a second look, about every 17th reading finds no environment."""
    program = tmp_path / "again"
    program.write_text('#!/bin/sh\nexec "$0"\n', encoding="ascii")
    program.chmod(0o755)
    tag = "folder:s:digest"
    with subprocess.Popen([program], env=os.environ | {process_table.OWNERSHIP_VARIABLE: tag}) as process:
        try:
            entry = process_table.read_entry(process.pid)
            assert entry
            found = {process_table.Marks().read([entry]).get(process.pid) for _ in range(2000)}
        finally:
            process.kill()
    assert found == {tag}


@pytest.mark.parametrize("kind", ["session", "daemon", "bare"])
async def test_a_stop_ends_workers_that_left_session_group_or_environment(
    api: FakeApi, tmp_path: Path, file: Path, kind: str
) -> None:
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), entry(kind, file), stop_seconds=0.3) as it:
        await it.until("s", "Stopped")
        await it.agent.services.command("start", "s", wait=True)
        await eventually(lambda: worker(file))
        pid = worker(file)
        assert alive(pid)
        assert await it.agent.services.command("stop", "s", wait=True) == "s: Stopped"
        assert not alive(pid)
        await it.shut_down()


@pytest.mark.parametrize("kind", ["session", "daemon", "bare"])
async def test_retries_after_crashes_add_no_workers(
    api: FakeApi, tmp_path: Path, file: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hotpool_agent.service_manager._TRACK_SECONDS", 0.05)
    pids: list[int] = []
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), entry(kind, file, "autoStart: true,")) as it:
        for _ in range(3):
            await it.until("s", "Running")
            await eventually(lambda: worker(file) not in {0, *pids})
            pids.append(worker(file))
            leader = it.service("s").machine.pid or 0
            # A process that sheds its environment is known by its descent, which the agent has seen by then.
            await eventually(lambda: knows(it.service("s"), pids[-1]))
            os.kill(leader, signal.SIGKILL)
            await eventually(partial(restarted, it.service("s"), leader))
            assert [pid for pid in pids if alive(pid)] == []
        await it.shut_down()


async def test_what_is_left_after_a_stop_is_named_and_the_stop_fails(
    api: FakeApi, tmp_path: Path, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worker cannot be signalled here, as one of another user."""
    monkeypatch.setattr(process, "KILL_SECONDS", 0.3)
    send = members._send  # noqa: SLF001
    monkeypatch.setattr(members, "_send", lambda key, number: None if key[0] == worker(file) else send(key, number))
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), entry("daemon", file), stop_seconds=0.2) as it:
        await it.until("s", "Stopped")
        await it.agent.services.command("start", "s", wait=True)
        await eventually(lambda: worker(file))
        left = rf"s: still alive after KILL: {worker(file)} \(python[0-9.]*\)$"
        with pytest.raises(CommandError, match=left):
            await it.agent.services.command("stop", "s", wait=True)
        assert it.state("s") == "Failed"
        os.kill(worker(file), signal.SIGKILL)
        await it.until("s", "Stopped")
        await it.shut_down()


async def test_workers_without_their_service_are_ended_and_never_adopted_in_its_place(
    api: FakeApi, tmp_path: Path, file: Path
) -> None:
    entries = entry("session", file, "autoStart: true,")
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), entries) as it:
        await it.until("s", "Running")
        await eventually(lambda: worker(file))
        leader, pid = it.service("s").machine.pid or 0, worker(file)
    os.kill(leader, signal.SIGKILL)
    await eventually(lambda: not alive(leader))
    os.unlink(file)  # noqa: PTH108 - Path.unlink counts as blocking here
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), entries, stop_seconds=0.2) as it:
        await it.until("s", "Running")
        assert it.service("s").machine.pid not in {leader, pid}
        assert not alive(pid)
        await it.shut_down()


async def test_leftovers_of_a_stopped_service_are_ended_before_it_can_start(
    api: FakeApi, tmp_path: Path, file: Path
) -> None:
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), entry("session", file)) as it:
        await it.until("s", "Stopped")
        await it.agent.services.command("start", "s", wait=True)
        await eventually(lambda: worker(file))
        leader, pid = it.service("s").machine.pid or 0, worker(file)
        it.service("s").stored.desired = "Stopped"
        it.agent.store.save()
    os.kill(leader, signal.SIGKILL)
    await eventually(lambda: not alive(leader))
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), entry("session", file), stop_seconds=0.2) as it:
        await it.until("s", "Stopping")
        assert await it.agent.services.command("start", "s", wait=True) == "s: Running"
        assert not alive(pid)
        await it.shut_down()


def test_a_shell_from_which_a_marked_process_was_started_by_hand_does_not_belong() -> None:
    def one(pid: int, parent: int, session: int) -> ProcessEntry:
        return ProcessEntry(pid, parent, session, session, pid, "x", alive=True)

    shell, by_hand, child, other = one(10, 1, 10), one(11, 10, 10), one(12, 11, 10), one(13, 10, 10)
    table = ProcessTable([shell, by_hand, child, other], {11: "folder:s:digest"})
    assert table.related(table.of_owner("folder:s")) == [by_hand, child]


def test_a_process_whose_environment_cannot_be_read_is_skipped_the_next_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The read of a process that hangs in the kernel does not return."""
    asked: list[int] = []

    class HangError(Exception):
        """Stands for a read that does not return."""

    def hang(pid: int) -> str:
        asked.append(pid)
        raise HangError

    monkeypatch.setattr(process_table, "_read_tag", hang)
    marks = process_table.Marks()
    table = [ProcessEntry(7, 1, 7, 7, 1, "x", alive=True)]
    with pytest.raises(HangError):
        marks.read(table)
    assert marks.read(table) == {}
    assert asked == [7]


async def test_a_zombie_main_thread_is_no_ended_process() -> None:
    script = (
        "import ctypes, threading, time; threading.Thread(target=time.sleep, args=[600]).start();"
        "ctypes.CDLL(None).pthread_exit(None)"
    )
    program = await asyncio.create_subprocess_exec(sys.executable, "-c", script)
    try:
        await eventually(lambda: psutil.Process(program.pid).status() == psutil.STATUS_ZOMBIE)
        found = process_table.read_entry(program.pid)
        assert found is not None
        assert found.alive
    finally:
        program.kill()
        await program.wait()
