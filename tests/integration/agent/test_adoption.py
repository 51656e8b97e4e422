"""Services outlive the agent, and the next one takes them over (requirement A11): real processes.

Requirements A8, B10.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.support.agent_run import Running, agent_running, capability, eventually, supervised
from tests.support.fake_api import FakeApi

from hotpool_agent.control.protocol import Request
from hotpool_agent.services import orphans
from localfleet.ports import free_port


def auto(port: int, *arguments: str) -> str:
    return supervised("s", port, *arguments).replace("  run:", "  autoStart: true\n  run:")


@asynccontextmanager
async def crashed(api: FakeApi, folder: Path, entry: str) -> AsyncIterator[tuple[int, int]]:
    """Crash an agent whose service runs; provide the service's pid and the number of reports written."""
    async with agent_running(folder, api.kubeconfig(folder), entry) as it:
        await it.until("s", "Running")
        await api.until(lambda: capability(api) == (True, None))
        pid = it.service("s").machine.pid
        assert pid
    yield pid, len(api.writes)


def edit_state(folder: Path, **changes: Any) -> None:
    """Change the service's entry in the state file."""
    path = folder / "n1" / "state.json"
    state = json.loads(path.read_text())
    state["services"]["s"].update(changes)
    path.write_text(json.dumps(state))


@contextmanager
def unreaped() -> Iterator[int]:
    """Provide the pid of a zombie: it has ended, but its parent has not read its exit status."""
    with subprocess.Popen([sys.executable, "-c", ""]) as dead:
        yield dead.pid


def edit_boot(folder: Path, boot: str) -> None:
    """Change the boot id in the state file."""
    path = folder / "n1" / "state.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"boot": boot}))


def stored_service(folder: Path) -> dict[str, Any]:
    """Return the service's entry in the state file."""
    entry: dict[str, Any] = json.loads((folder / "n1" / "state.json").read_text())["services"]["s"]
    return entry


def start_ticks(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


async def until_reported(it: Running, api: FakeApi, count: int) -> dict[str, Any]:
    """Return the first report of the next agent."""
    await api.until(lambda: len(api.writes) > count)
    assert api.writes[count].report["session"] == it.agent.blank.session
    return api.writes[count].report


async def test_the_next_agent_adopts_a_running_service_without_a_gap(api: FakeApi, tmp_path: Path, port: int) -> None:
    async with (
        crashed(api, tmp_path, auto(port)) as (pid, count),
        agent_running(tmp_path, api.kubeconfig(tmp_path), auto(port)) as it,
    ):
        first = await until_reported(it, api, count)
        before = api.writes[count - 1].report
        assert [item["ready"] for item in first["capabilities"]] == [True]
        assert first["services"] == before["services"]
        assert first["services"][0]["pid"] == it.service("s").machine.pid == pid
        assert await it.agent.services.command("stop", "s", wait=True) == "s: Stopped"
        assert gone(pid)
        await it.shut_down()


async def test_an_adopted_service_that_dies_is_run_again(api: FakeApi, tmp_path: Path, port: int) -> None:
    async with (
        crashed(api, tmp_path, auto(port)) as (pid, _),
        agent_running(tmp_path, api.kubeconfig(tmp_path), auto(port)) as it,
    ):
        await it.until("s", "Running")
        os.kill(pid, signal.SIGKILL)
        await eventually(lambda: it.service("s").machine.pid not in {None, pid} and it.state("s") == "Running")
        await it.shut_down()


async def test_a_foreign_process_that_reuses_the_pid_is_left_alone(api: FakeApi, tmp_path: Path, port: int) -> None:
    async with crashed(api, tmp_path, auto(port)) as (pid, _):
        os.killpg(pid, signal.SIGKILL)
        await eventually(lambda: gone(pid))
        foreign = await asyncio.create_subprocess_exec(sys.executable, "-c", "import time; time.sleep(600)")
        edit_state(tmp_path, pid=foreign.pid)
        async with agent_running(tmp_path, api.kubeconfig(tmp_path), auto(port)) as it:
            await it.until("s", "Running")
            assert it.service("s").machine.pid not in {pid, foreign.pid}
            await it.shut_down()
        assert foreign.returncode is None
        foreign.kill()
        await foreign.wait()


def patient(port: int, failures: int) -> str:
    """Return a service that is ended after that many failed probes in a row."""
    probes = (
        "  ready: {http: {path: /health}, periodSeconds: 0.1}\n"
        f"  live: {{timeoutSeconds: 0.2, periodSeconds: 0.2, failures: {failures}}}\n"
    )
    return supervised("s", port, more=probes).replace("  run:", "  autoStart: true\n  run:")


async def test_a_process_that_does_not_answer_is_offered_until_its_own_threshold_and_then_run_again(
    api: FakeApi, tmp_path: Path, port: int
) -> None:
    async with crashed(api, tmp_path, patient(port, 4)) as (pid, count):
        before = api.writes[count - 1].report["services"]
        os.kill(pid, signal.SIGSTOP)
        async with agent_running(tmp_path, api.kubeconfig(tmp_path), patient(port, 4)) as it:
            first = await until_reported(it, api, count)
            assert [(item["ready"], item["reason"]) for item in first["capabilities"]] == [(True, None)]
            assert first["services"] == before
            assert not gone(pid)
            await it.until("s", "Starting")
            error = it.service("s").machine.last_error or ""
            assert f"not adopted: http://127.0.0.1:{port}/health: no answer in 0.2 s" in error
            await it.until("s", "Running", seconds=20)
            assert gone(pid)
            await it.shut_down()


async def test_a_busy_process_that_answers_before_its_threshold_is_adopted_without_a_gap(
    api: FakeApi, tmp_path: Path, port: int
) -> None:
    async with crashed(api, tmp_path, patient(port, 60)) as (pid, count):
        os.kill(pid, signal.SIGSTOP)
        async with agent_running(tmp_path, api.kubeconfig(tmp_path), patient(port, 60)) as it:
            await until_reported(it, api, count)
            os.kill(pid, signal.SIGCONT)
            probes = it.service("s")
            await eventually(lambda: probes._tasks["probe"].get_coro().__name__ == "until_hung")  # type: ignore[union-attr]  # noqa: SLF001
            assert (it.state("s"), it.service("s").machine.pid) == ("Running", pid)
            assert all(write.report["capabilities"][0]["ready"] for write in api.writes[count:])
            await it.shut_down()


async def test_a_service_that_failed_before_its_agent_died_is_not_offered_by_the_next_one(
    api: FakeApi, tmp_path: Path, port: int
) -> None:
    entry = patient(port, 3).replace("--port", '--ignore-term", "--port', 1)
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), entry, stop_seconds=60) as it:
        await it.until("s", "Running")
        pid = it.service("s").machine.pid or 0
        os.kill(pid, signal.SIGSTOP)
        await it.until("s", "Failed")
        await eventually(lambda: stored_service(tmp_path)["since"] is None)
    count = len(api.writes)
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), entry) as it:
        first = await until_reported(it, api, count)
        assert [(item["ready"], item["reason"]) for item in first["capabilities"]] == [(False, "Starting")]


async def test_a_service_that_still_loads_goes_on_loading(api: FakeApi, tmp_path: Path, port: int) -> None:
    entry = auto(port, "--start-delay", "1.5")
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), entry) as it:
        await it.until("s", "Starting")
        await eventually(lambda: it.service("s").machine.pid)
        pid = it.service("s").machine.pid
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), entry) as it:
        await it.until("s", "Running")
        assert it.service("s").machine.pid == pid
        await it.shut_down()


@pytest.mark.parametrize("change", ["desired state", "command", "removal"])
async def test_a_process_that_the_catalogue_or_the_desired_state_excludes_is_ended(
    api: FakeApi, tmp_path: Path, port: int, change: str
) -> None:
    entries = {"desired state": auto(port), "command": auto(port, "--type", "other"), "removal": ""}
    async with crashed(api, tmp_path, auto(port)) as (pid, _):
        if change == "desired state":
            edit_state(tmp_path, desired="Stopped", desiredBy="local")
        async with agent_running(tmp_path, api.kubeconfig(tmp_path), entries[change]) as it:
            await eventually(lambda: gone(pid))
            if change == "command":
                await it.until("s", "Running")
            elif change == "desired state":
                await it.until("s", "Stopped")
            else:
                assert it.agent.services.services == {}
            await it.shut_down()


async def test_a_service_started_just_before_the_agent_died_is_found_by_its_ownership_tag(
    api: FakeApi, tmp_path: Path, port: int
) -> None:
    async with crashed(api, tmp_path, auto(port)) as (pid, _):
        edit_state(tmp_path, pid=None, started=None, recipe=None, since=None)
        async with agent_running(tmp_path, api.kubeconfig(tmp_path), auto(port)) as it:
            await it.until("s", "Running")
            assert it.service("s").machine.pid == pid
            await it.shut_down()


async def test_a_zombie_is_not_taken_for_the_service(api: FakeApi, tmp_path: Path, port: int) -> None:
    async with crashed(api, tmp_path, auto(port)) as (pid, _):
        with unreaped() as dead:
            await eventually(lambda: psutil.Process(dead).status() == psutil.STATUS_ZOMBIE)
            edit_state(tmp_path, pid=dead, started=start_ticks(dead))
            async with agent_running(tmp_path, api.kubeconfig(tmp_path), auto(port)) as it:
                await it.until("s", "Running")
                assert it.service("s").machine.pid not in {dead, pid}
                assert gone(pid)
                await it.shut_down()


async def test_a_service_with_another_launch_digest_that_is_not_in_the_file_is_run_again(
    api: FakeApi, tmp_path: Path, port: int
) -> None:
    async with crashed(api, tmp_path, auto(port)) as (pid, _):
        edit_state(tmp_path, pid=None, started=None, recipe=None, since=None)
        async with agent_running(tmp_path, api.kubeconfig(tmp_path), auto(port, "--type", "other")) as it:
            await it.until("s", "Running")
            assert it.service("s").machine.pid != pid
            assert gone(pid)
            await it.shut_down()


async def test_a_process_found_by_its_ownership_tag_is_written_to_the_state_file(
    api: FakeApi, tmp_path: Path, port: int
) -> None:
    async with crashed(api, tmp_path, auto(port)) as (pid, _):
        edit_state(tmp_path, pid=None, started=None, recipe=None, since=None)
    async with crashed(api, tmp_path, auto(port)) as (again, _):
        assert again == pid
        assert stored_service(tmp_path)["pid"] == pid
        assert stored_service(tmp_path)["since"]


async def test_a_service_that_ran_before_its_agent_could_store_it_is_not_withdrawn(
    api: FakeApi, tmp_path: Path, port: int
) -> None:
    patient = "  ready: {http: {path: /health}, timeoutSeconds: 4, startSeconds: 20}\n"
    entry = supervised("s", port, more=patient).replace("  run:", "  autoStart: true\n  run:")
    async with crashed(api, tmp_path, entry) as (pid, count):
        edit_state(tmp_path, since=None)
        # The delay of its answer is the moment in which a report could overtake its probe.
        os.kill(pid, signal.SIGSTOP)
        asyncio.get_running_loop().call_later(0.5, os.kill, pid, signal.SIGCONT)
        async with agent_running(tmp_path, api.kubeconfig(tmp_path), entry) as it:
            first = await until_reported(it, api, count)
            assert [(item["ready"], item["reason"]) for item in first["capabilities"]] == [(True, None)]
            assert first["services"][0]["pid"] == pid
            await it.shut_down()


async def test_a_service_that_still_loads_does_not_delay_the_first_report(
    api: FakeApi, tmp_path: Path, port: int
) -> None:
    entry = auto(port, "--start-delay", "30")
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), entry) as it:
        await eventually(lambda: it.agent.services.services and it.service("s").machine.pid)
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), entry) as it:
        await api.until(lambda: (api.report("n1") or {}).get("session") == it.agent.blank.session)
        assert it.service("s").probed
        assert capability(api) == (False, "Starting")
        await it.shut_down()


async def test_a_heavy_service_waits_for_one_that_was_left_loading(api: FakeApi, tmp_path: Path, port: int) -> None:
    heavy = "  heavy: true\n  run:"
    loading = auto(port, "--start-delay", "1.5").replace("  run:", heavy)
    first = auto(free_port()).replace("id: s", "id: first").replace("  run:", heavy)
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), loading) as it:
        await eventually(lambda: it.agent.services.services and it.service("s").machine.pid)
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), first + loading) as it:
        await eventually(lambda: it.agent.services.services and it.service("first").machine.pid)
        assert it.state("s") == "Running"
        await it.shut_down()


async def test_a_pid_of_an_earlier_boot_is_not_adopted(api: FakeApi, tmp_path: Path, port: int) -> None:
    """Pid and start time, which is relative to the boot, may repeat after the next boot."""
    async with crashed(api, tmp_path, auto(port)) as (pid, _):
        os.killpg(pid, signal.SIGKILL)
        await eventually(lambda: gone(pid))
        foreign = await asyncio.create_subprocess_exec("sleep", "600", start_new_session=True)
        edit_state(tmp_path, pid=foreign.pid, started=start_ticks(foreign.pid))
        edit_boot(tmp_path, "another")
        async with agent_running(tmp_path, api.kubeconfig(tmp_path), auto(port)) as it:
            await it.until("s", "Running")
            assert it.service("s").machine.pid != foreign.pid
            await it.shut_down()
        assert foreign.returncode is None
        foreign.kill()
        await foreign.wait()


async def test_children_of_a_service_that_died_without_an_agent_are_ended(
    api: FakeApi, tmp_path: Path, port: int
) -> None:
    async with crashed(api, tmp_path, auto(port, "--child")) as (pid, _):
        (child,) = psutil.Process(pid).children()
        os.kill(pid, signal.SIGKILL)
        await eventually(lambda: gone(pid))
        async with agent_running(tmp_path, api.kubeconfig(tmp_path), auto(port)) as it:
            await it.until("s", "Running")
            await eventually(lambda: gone(child.pid))
            await it.shut_down()


async def test_a_defect_that_ends_the_agent_ends_no_service(
    api: FakeApi, tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), auto(port)) as it:
        await it.until("s", "Running")
        await api.until(lambda: capability(api) == (True, None))
        pid, count = it.service("s").machine.pid, len(api.writes)

        async def die(*_: Any) -> None:
            raise RuntimeError("a defect")

        monkeypatch.setattr(it.agent.store, "_write", die)
        it.agent.store.save()
        with pytest.raises(RuntimeError, match="a defect"):
            await asyncio.wait_for(it.task, 20)
    assert pid
    assert not gone(pid)
    assert len(api.writes) == count
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), auto(port)) as it:
        await until_reported(it, api, count)
        assert it.service("s").machine.pid == pid
        await it.shut_down()


async def test_keep_leaves_services_running_and_announces_nothing(api: FakeApi, tmp_path: Path, port: int) -> None:
    keep = "onAgentExit: keep\n"
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), auto(port), head=keep) as it:
        await it.until("s", "Running")
        await api.until(lambda: capability(api) == (True, None))
        pid, count = it.service("s").machine.pid, len(api.writes)
        await it.shut_down()
    assert pid
    assert not gone(pid)
    assert len(api.writes) == count
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), auto(port)) as it:
        first = await until_reported(it, api, count)
        assert (first["leaving"], first["capabilities"][0]["ready"]) == (False, True)
        assert it.service("s").machine.pid == pid
        await it.shut_down()


async def test_requests_wait_until_the_processes_of_the_last_agent_are_found(
    api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = asyncio.Event()

    async def find_slowly(*_: object) -> orphans.OrphanedProcesses:
        await found.wait()
        return orphans.OrphanedProcesses()

    monkeypatch.setattr(orphans, "find", find_slowly)
    entry = supervised("s", free_port())
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), entry) as it:
        requests = [asyncio.create_task(it.agent.dispatch(Request(op=op, id="s"))) for op in ("status", "start")]
        await asyncio.sleep(0)
        assert it.agent.services.services == {}
        found.set()
        status, started = await asyncio.gather(*requests)
        assert [service["id"] for service in status["services"]] == ["s"]
        assert started
        await it.shut_down()
