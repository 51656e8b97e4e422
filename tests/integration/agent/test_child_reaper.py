"""The agent reaps the orphans of its services (requirement A13): real processes, also with the agent as process 1."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import psutil
import pytest
from tests.support.agent_process import spawn
from tests.support.agent_run import eventually, write_catalogue
from tests.support.fake_api import FakeApi
from tests.support.not_run import not_run

from hotpool_agent.services import child_reaper
from localfleet.kind import REPOSITORY

ORPHANS = REPOSITORY / "tests" / "support" / "samples" / "orphans.py"
COUNT = 30
AS_INIT = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")


def zombies(parent: int) -> int:
    """Count the ended children that their parent has not reaped."""
    count = 0
    for child in psutil.Process(parent).children():
        with suppress(psutil.NoSuchProcess):
            count += child.status() == psutil.STATUS_ZOMBIE
    return count


@asynccontextmanager
async def agent_process(
    api: FakeApi, folder: Path, environment: dict[str, str], entry: str, inside: Sequence[str] = ()
) -> AsyncIterator[int]:
    """Run an agent as a process of its own; provide its pid, and expect an orderly end after SIGTERM."""
    catalogue = write_catalogue(folder, entry)
    words = ["run", "--catalogue", str(catalogue), "--node", "n1", "--kubeconfig", str(api.kubeconfig(folder))]
    process = await spawn(environment, *words, "--interval", "1", "--debounce", "0.1", inside=inside)
    try:
        await api.until(lambda: api.report("n1"), seconds=30)
        pid = psutil.Process(process.pid).children()[0].pid if inside else process.pid
        yield pid
        os.kill(pid, signal.SIGTERM)
        await asyncio.wait_for(process.wait(), 30)
        assert process.returncode == 0
    finally:
        if process.returncode is None:
            process.kill()
        print((await process.communicate())[1].decode())  # noqa: T201 - shown if the test fails


@pytest.mark.parametrize("inside", [(), AS_INIT], ids=["descendants", "process 1"])
async def test_orphans_become_children_of_the_agent_and_leave_no_zombies(
    api: FakeApi, tmp_path: Path, environment: dict[str, str], inside: Sequence[str], request: pytest.FixtureRequest
) -> None:
    if inside and subprocess.run([*inside, "true"], check=False, capture_output=True).returncode:  # noqa: ASYNC221
        not_run(request, "a process namespace needs root")
        return
    file = tmp_path / "last"
    command = f"[{sys.executable}, {ORPHANS}, '{COUNT}', {file}]"
    entry = f"- {{id: s, type: asr, autoStart: true, run: {{command: {command}}}}}\n"
    async with agent_process(api, tmp_path, environment, entry, inside) as agent:
        await eventually(file.exists)
        if not inside:
            last = psutil.Process(int(file.read_text(encoding="ascii")))
            await eventually(lambda: last.ppid() == agent)
        await eventually(lambda: zombies(agent) == 0)


async def test_the_exit_code_of_a_service_is_its_own_although_the_agent_reaps_orphans(
    api: FakeApi, tmp_path: Path, environment: dict[str, str]
) -> None:
    entry = "- {id: s, type: asr, autoStart: true, run: {command: [sh, -c, 'sleep 0 & exit 7']}}\n"
    async with agent_process(api, tmp_path, environment, entry):

        def errors() -> str:
            return str((api.report("n1") or {})["services"][0]["lastError"])

        await api.until(lambda: "exited with code 7" in errors())


async def test_an_ended_child_that_has_an_owner_is_left_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_reaper, "_PATIENCE", 0.05)
    owned, orphan = (subprocess.Popen(["sh", "-c", "exit 7"]) for _ in range(2))  # noqa: ASYNC220, S607
    child_reaper.leave(owned.pid)
    reaping = asyncio.create_task(child_reaper.reap_forever())
    await eventually(lambda: not psutil.pid_exists(orphan.pid))
    assert psutil.Process(owned.pid).status() == psutil.STATUS_ZOMBIE
    child_reaper.take(owned.pid)
    os.kill(os.getpid(), signal.SIGCHLD)  # Another child ends.
    await eventually(lambda: not psutil.pid_exists(owned.pid))
    reaping.cancel()
    await asyncio.gather(reaping, return_exceptions=True)
    assert {owned.poll(), orphan.poll()} == {0}  # Both were reaped by another.
