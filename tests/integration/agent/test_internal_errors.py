"""An unexpected exception in a service's task is an event with an outcome, not only a log line (requirement A12)."""

import asyncio
import os
import signal
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import psutil
import pytest
from tests.support.agent_run import agent_running, capability, eventually, supervised
from tests.support.fake_api import FakeApi

from hotpool.common import threads
from hotpool_agent.probes.prober import Prober
from hotpool_agent.service_manager import CommandError
from hotpool_agent.services import controller, probing
from hotpool_agent.services.log_rotation import rotate_forever
from hotpool_agent.services.process import Process

IDLE = "- {id: s, type: asr, preStopSeconds: 0, run: {command: [sleep, '600']}}\n"


def defect(*_: Any, **__: Any) -> NoReturn:
    raise RuntimeError("a defect \ud83c")


async def fail(*_: Any, **__: Any) -> NoReturn:
    defect()


class FailingLog:
    """A log on a full disk."""

    info = warning = error = debug = defect


@pytest.mark.parametrize("place", ["before the process", "after the process"])
async def test_an_error_in_a_start_is_a_failed_start_without_a_process_left(
    api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    children = set(psutil.Process().children())
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), IDLE) as it:
        await it.until("s", "Stopped")
        with monkeypatch.context() as broken:
            if place == "before the process":
                broken.setattr(Process, "launch", fail)
            else:
                broken.setattr(it.service("s"), "_store", defect)
            with pytest.raises(CommandError, match=r"internal error: RuntimeError: a defect \?"):
                await it.agent.services.command("start", "s", wait=True)
            await it.service("s").wait_settled()
            assert set(psutil.Process().children()) <= children
        await it.until("s", "Running")
        await it.shut_down()


async def test_an_error_in_a_readiness_probe_fails_the_start_and_the_retry_succeeds(
    api: FakeApi, tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), supervised("s", port)) as it:
        await it.until("s", "Stopped")
        with monkeypatch.context() as broken:
            broken.setattr(probing, "until_ready", fail)
            with pytest.raises(CommandError, match="internal error: RuntimeError"):
                await it.agent.services.command("start", "s", wait=True)
        await it.until("s", "Running")
        await it.shut_down()


async def test_an_error_in_a_liveness_probe_takes_the_service_out_and_starts_it_again(
    api: FakeApi, tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), supervised("s", port)) as it:
        await it.until("s", "Stopped")
        with monkeypatch.context() as broken:
            broken.setattr(probing, "until_hung", fail)
            await it.agent.services.command("start", "s", wait=False)
            await it.until("s", "Failed")
        await it.until("s", "Running")
        assert it.service("s").machine.restarts >= 1
        await it.shut_down()


async def test_an_error_in_the_observation_is_a_failed_probe_and_the_observation_goes_on(
    api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(controller, "_REPEAT_SECONDS", 0.05)
    (tmp_path / "alive").touch()
    entry = "- {id: s, type: asr, observe: {file: {path: alive}, periodSeconds: 0.05}}\n"
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), entry) as it:
        await api.until(lambda: capability(api) == (True, None))
        with monkeypatch.context() as broken:
            broken.setattr(Prober, "probe", fail)
            await api.until(lambda: capability(api) == (False, "Failed"))
        await api.until(lambda: capability(api) == (True, None))
        await it.shut_down()


async def test_an_error_while_a_process_is_ended_is_no_success_and_is_tried_again(
    api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(controller, "_REPEAT_SECONDS", 0.05)
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), IDLE) as it:
        await it.until("s", "Stopped")
        await it.agent.services.command("start", "s", wait=True)
        pid = it.service("s").machine.pid or 0
        with monkeypatch.context() as broken:
            broken.setattr(Process, "end", fail)
            with pytest.raises(CommandError, match="internal error: RuntimeError"):
                await it.agent.services.command("stop", "s", wait=True)
            assert psutil.pid_exists(pid)
        await it.until("s", "Stopped")
        assert not psutil.pid_exists(pid)
        await it.shut_down()


@pytest.mark.parametrize("broken_part", ["log", "report"])
async def test_a_crash_is_handled_although_log_or_report_fail(
    api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken_part: str
) -> None:
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), IDLE) as it:
        await it.until("s", "Stopped")
        await it.agent.services.command("start", "s", wait=True)
        pid = it.service("s").machine.pid or 0
        if broken_part == "log":
            monkeypatch.setattr(controller, "_LOG", FailingLog)
        else:
            broken: Any = SimpleNamespace(changed=defect, wait_withdrawn=it.agent.reporter.wait_withdrawn)
            context = replace(it.service("s")._context, reporting=broken)  # noqa: SLF001
            monkeypatch.setattr(it.service("s"), "_context", context)
        changes = asyncio.create_task(it.until("s", "Failed"))
        os.kill(pid, signal.SIGKILL)
        await changes
        await eventually(lambda: it.service("s").machine.pid not in {None, pid})
        await it.until("s", "Running")
        assert await it.agent.services.command("stop", "s", wait=True) == "s: Stopped"
        await it.shut_down()


async def test_a_machine_without_free_threads_ends_neither_the_agent_nor_its_tasks(
    api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: set[str] = set()

    def refuse(thread: threading.Thread) -> None:
        refused.add(called_by(thread))
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("hotpool_agent.service_manager._TRACK_SECONDS", 0.05)
    monkeypatch.setattr("hotpool_agent.state_store._RETRY_SECONDS", 0.05)
    monkeypatch.setattr("hotpool_agent.app.rotate_forever", partial(rotate_forever, period=0.05))
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), IDLE) as it:
        await it.until("s", "Stopped")
        await it.agent.services.command("start", "s", wait=True)
        with monkeypatch.context() as scarce:
            scarce.setattr(threads, "_MAX_IDLE", 0)
            threads._IDLE.clear()  # noqa: SLF001
            scarce.setattr(threading.Thread, "start", refuse)
            it.agent.store.save()
            await eventually(lambda: refused >= {"_read", "_rotate_all", "<lambda>"})
            await eventually(lambda: it.agent.store.problem)
            await asyncio.sleep(0)
        assert await it.agent.store.flush_within(10)
        tracking = it.agent.services._tracking  # noqa: SLF001
        assert tracking
        assert not tracking.done()
        assert it.alive()
        assert await it.agent.services.command("stop", "s", wait=True) == "s: Stopped"
        await it.shut_down()


def called_by(thread: threading.Thread) -> str:
    """Return the name of the function that this thread of `run_blocking` would call."""
    run: Any = thread._args[0]  # type: ignore[attr-defined]  # noqa: SLF001
    work: Any = next(cell.cell_contents for cell in run.__closure__ if callable(cell.cell_contents))
    return str(getattr(work, "func", work).__name__)
