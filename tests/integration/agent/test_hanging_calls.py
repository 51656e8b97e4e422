"""A file system that hangs affects one service at most (requirement A12): named pipes, and a frozen file system."""

import asyncio
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.support.agent_run import agent_running, capability, eventually
from tests.support.fake_api import FakeApi
from tests.support.frozen_filesystem import frozen_filesystem
from tests.support.not_run import not_run

from hotpool_agent.paths import log_folder
from hotpool_agent.service_manager import CommandError
from hotpool_agent.services import launch, log_rotation
from hotpool_agent.services.log_rotation import rotate_forever

HANGS = {
    "program": "not begun after 1 s; a file system may not respond",
    "workingDir": "working directory .*: no response in 1 s",
}
OTHER = "- {id: o, type: tts, run: {command: [sleep, '600']}}\n"


@pytest.fixture
def frozen(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path | None]:
    """A folder in which each access hangs until the end of the test; None where that is impossible."""
    folder = tmp_path / "frozen"
    folder.mkdir()
    with frozen_filesystem(folder) as mounted:
        if not mounted:
            not_run(request, "a frozen file system needs root and /dev/fuse")
        yield folder if mounted else None


@pytest.fixture(autouse=True)
def short_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "LAUNCH_SECONDS", 1.0)
    monkeypatch.setattr(launch, "LOG_SECONDS", 0.2)


def hanging_entry(kind: str, folder: Path) -> str:
    """Return a service whose start hangs."""
    program, working_dir = (folder / "x", ".") if kind == "program" else ("sleep", folder / "x")
    return f"- {{id: s, type: asr, run: {{command: [{program}, '600'], workingDir: {working_dir}}}}}\n"


@pytest.mark.parametrize("kind", ["program", "workingDir"])
async def test_a_start_that_hangs_fails_and_neither_others_nor_a_stop_nor_sigterm_wait_for_it(
    api: FakeApi, tmp_path: Path, frozen: Path | None, kind: str
) -> None:
    if frozen is None:
        return
    children = set(psutil.Process().children())
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), hanging_entry(kind, frozen) + OTHER) as it:
        await it.until("s", "Stopped")
        begun = asyncio.create_task(it.agent.services.command("start", "s", wait=True))
        assert await it.agent.services.command("start", "o", wait=True) == "o: Running"
        await api.until(lambda: capability(api, "tts") == (True, None))
        with pytest.raises(CommandError, match=HANGS[kind]):
            await begun
        # Retries hang as well, and add neither processes nor threads.
        threads = threading.active_count()
        await eventually(lambda: it.service("s").machine.restarts >= 2, seconds=20)
        assert threading.active_count() <= threads + 1
        assert await it.agent.services.command("stop", "s", wait=True) == "s: Stopped"
        await it.shut_down()
    assert set(psutil.Process().children()) <= children


async def test_a_stop_during_a_start_that_hangs_ends_stopped(api: FakeApi, tmp_path: Path, frozen: Path | None) -> None:
    if frozen is None:
        return
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), hanging_entry("program", frozen)) as it:
        await it.until("s", "Stopped")
        await it.agent.services.command("start", "s", wait=False)
        assert it.state("s") == "Starting"
        assert await it.agent.services.command("stop", "s", wait=True) == "s: Stopped"
        await it.shut_down()


async def test_an_agent_that_keeps_its_services_ends_a_start_that_hangs(
    api: FakeApi, tmp_path: Path, frozen: Path | None
) -> None:
    """Its program would begin once the file system responds, and no agent would know of it."""
    if frozen is None:
        return
    before, entry = set(psutil.Process().children()), hanging_entry("program", frozen)
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), entry, head="onAgentExit: keep\n") as it:
        await it.until("s", "Stopped")
        await it.agent.services.command("start", "s", wait=False)
        await eventually(lambda: set(psutil.Process().children()) - before)
        await it.shut_down()
        await eventually(lambda: set(psutil.Process().children()) <= before)


async def test_a_start_whose_process_cannot_be_killed_is_named_and_not_tried_again(
    api: FakeApi, tmp_path: Path, frozen: Path | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if frozen is None:
        return
    kill = os.kill
    monkeypatch.setattr(os, "kill", lambda *_: None)
    monkeypatch.setattr(launch, "KILL_SECONDS", 0.3)
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), hanging_entry("program", frozen)) as it:
        await it.until("s", "Stopped")
        with pytest.raises(CommandError, match=r"process \d+ hangs: a file system does not respond"):
            await it.agent.services.command("start", "s", wait=True)
        with pytest.raises(CommandError, match=r"process \d+ hangs: a file system does not respond"):
            await it.agent.services.command("stop", "s", wait=True)
        assert it.service("s").machine.restarts == 0
        hung = it.service("s")._process  # noqa: SLF001
        assert hung
        kill(hung.pid, signal.SIGKILL)
        await it.until("s", "Stopped")
        await it.shut_down()


async def test_a_log_file_that_hangs_costs_the_log_and_not_the_service(
    api: FakeApi, tmp_path: Path, frozen: Path | None
) -> None:
    if frozen is None:
        return
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), OTHER) as it:
        await it.until("o", "Stopped")
        (log_folder(tmp_path / "n1") / "o.log").symlink_to(frozen / "log")
        assert await it.agent.services.command("start", "o", wait=True) == "o: Running"
        await it.shut_down()


async def test_a_log_file_that_is_a_named_pipe_without_a_reader_does_not_block_the_start(
    api: FakeApi, tmp_path: Path
) -> None:
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), OTHER) as it:
        await it.until("o", "Stopped")
        os.mkfifo(log_folder(tmp_path / "n1") / "o.log")
        assert await it.agent.services.command("start", "o", wait=True) == "o: Running"
        await it.shut_down()


async def test_a_state_folder_that_hangs_is_a_problem_that_keeps_neither_services_nor_the_agent_from_ending(
    api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)

    def hang(*_: Any) -> None:
        pipe.open("w", encoding="ascii").close()

    monkeypatch.setattr("hotpool_agent.state_store._SLOW_SECONDS", 0.2)
    monkeypatch.setattr("hotpool_agent.service_manager._FLUSH_SECONDS", 0.2)
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), OTHER, request_seconds=0.5) as it:
        await it.until("o", "Stopped")
        monkeypatch.setattr("hotpool_agent.state_store.write_atomically", hang)
        with pytest.raises(CommandError, match="the desired state cannot be written to disk"):
            await it.agent.services.command("start", "o", wait=True)
        await it.until("o", "Running")
        await eventually(lambda: "does not respond" in (it.agent.store.problem or ""))
        await it.shut_down()
    assert not any("ThreadPool" in thread.name for thread in threading.enumerate())
    with pipe.open(encoding="ascii"):
        pass


async def test_log_rotation_that_hangs_occupies_one_thread_and_ends_with_the_agent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe, calls = tmp_path / "pipe", []
    os.mkfifo(pipe)

    def hang(*_: Any) -> list[tuple[Path, str]]:
        calls.append(1)
        pipe.open("w", encoding="ascii").close()
        return []

    monkeypatch.setattr(log_rotation, "_rotate_all", hang)
    task = asyncio.create_task(rotate_forever(tmp_path, period=0.01))
    await eventually(lambda: calls)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert calls == [1]
    with pipe.open(encoding="ascii"):
        pass
