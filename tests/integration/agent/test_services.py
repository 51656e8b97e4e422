"""The agent and real service processes (requirements A), with a fake API server over HTTP.

Requirements A2, A3, A4, A5, A7, A8, A9, B11.
"""

import asyncio
import errno
import os
import resource
import signal
import socket
import sys
from pathlib import Path

import aiohttp
import psutil
import pytest
from tests.support.agent_run import FAKE, agent_running, capability, eventually, supervised
from tests.support.fake_api import FakeApi, Fault

from hotpool_agent.control.protocol import Request
from hotpool_agent.service_manager import CommandError
from hotpool_agent.services import ports, process
from hotpool_agent.services.launch import Command, LaunchError, StuckError
from hotpool_agent.services.process import Process
from localfleet.ports import free_port

SHORT_TIMEOUTS = (
    "  ready: {http: {path: /health, expectBody: '\"ok\"'}, periodSeconds: 0.1, timeoutSeconds: 0.2, startSeconds: 1}\n"
)


async def test_start_and_stop_succeed_and_so_does_their_repetition(api: FakeApi, tmp_path: Path, port: int) -> None:
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), supervised("s", port)) as it:
        await api.until(lambda: capability(api) == (False, "Stopped"))
        assert await it.agent.services.command("start", "s", wait=True) == "s: Running"
        assert await it.agent.services.command("start", "s", wait=True) == "s: Running already"
        pid = it.service("s").machine.pid
        await api.until(lambda: capability(api) == (True, None))
        assert await it.agent.services.command("stop", "s", wait=True) == "s: Stopped"
        assert pid is not None
        assert not psutil.pid_exists(pid)
        assert not ports.is_listening(port)
        assert await it.agent.services.command("stop", "s", wait=True) == "s: Stopped already"
        await it.shut_down()


async def test_requests_to_an_agent_that_has_just_begun_wait_for_its_services(
    api: FakeApi, tmp_path: Path, port: int
) -> None:
    """The socket exists before them."""
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), supervised("s", port)) as it:
        shown, started = await asyncio.gather(
            it.agent.dispatch(Request(op="status")), it.agent.dispatch(Request(op="start", id="s"))
        )
        assert [service["id"] for service in shown["services"]] == ["s"]
        assert started == "s: Running"
        await it.shut_down()


async def test_an_observed_service_has_the_state_of_its_probe(api: FakeApi, tmp_path: Path, port: int) -> None:
    entry = f"- {{id: o, type: asr, port: {port}, observe: {{http: {{path: /health}}, periodSeconds: 0.05}}}}\n"
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), entry) as it:
        await api.until(lambda: capability(api) == (False, "Stopped"))
        other = await asyncio.create_subprocess_exec("python3", FAKE, "--port", str(port))
        await api.until(lambda: capability(api) == (True, None))
        with pytest.raises(CommandError, match="observed"):
            await it.agent.services.command("stop", "o", wait=True)
        async with aiohttp.ClientSession() as session:
            await session.post(f"http://127.0.0.1:{port}/health?status=503")
        await api.until(lambda: capability(api) == (False, "Failed"))
        other.kill()
        await other.wait()
        await api.until(lambda: capability(api) == (False, "Stopped"))
        await it.shut_down()


async def test_a_port_in_use_by_a_foreign_process_is_a_failure_that_names_it(
    api: FakeApi, tmp_path: Path, port: int
) -> None:
    with socket.create_server(("127.0.0.1", port)):
        async with agent_running(tmp_path, api.kubeconfig(tmp_path), supervised("s", port)) as it:
            await it.until("s", "Stopped")
            with pytest.raises(CommandError, match=f"port {port} is already in use by process {os.getpid()}"):
                await it.agent.services.command("start", "s", wait=True)
            await it.shut_down()


async def test_without_a_probe_a_service_runs_when_its_port_answers(api: FakeApi, tmp_path: Path, port: int) -> None:
    entry = supervised("s", port, "--start-delay", "0.3", more="  autoStart: true\n")
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), entry) as it:
        await it.until("s", "Running")
        assert ports.is_listening(port)
        await it.shut_down()


async def test_stop_during_start_leaves_no_process_and_no_error(api: FakeApi, tmp_path: Path, port: int) -> None:
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), supervised("s", port, "--start-delay", "30")) as it:
        await it.until("s", "Stopped")
        await it.agent.services.command("start", "s", wait=False)
        await eventually(lambda: it.service("s").machine.pid)
        pid = it.service("s").machine.pid
        assert pid
        assert await it.agent.services.command("stop", "s", wait=True) == "s: Stopped"
        assert not psutil.pid_exists(pid)
        assert it.service("s").machine.last_error is None
        await it.shut_down()


async def test_start_during_stop_ends_running(api: FakeApi, tmp_path: Path, port: int) -> None:
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), supervised("s", port, "--ignore-term")) as it:
        await it.until("s", "Stopped")
        await it.agent.services.command("start", "s", wait=True)
        pid = it.service("s").machine.pid
        await it.agent.services.command("stop", "s", wait=False)
        assert it.state("s") == "Stopping"
        await eventually(lambda: "end" in it.service("s")._tasks)  # noqa: SLF001 - TERM is on its way
        assert await it.agent.services.command("start", "s", wait=True) == "s: Running"
        assert it.service("s").machine.pid != pid
        await it.shut_down()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--health-status", "503"], "HTTP 503 from"),
        (["--health-body", "no"], "body 'no'"),
        (["--hang"], "no answer in 0.2 s"),
        (["--abort"], "Payload"),
        (["--start-delay", "30"], "Connection refused; http://[::1]:"),
    ],
)
async def test_readiness_fails_closed_and_leaves_no_process(
    api: FakeApi, tmp_path: Path, port: int, arguments: list[str], message: str
) -> None:
    entry = supervised("s", port, *arguments, more=SHORT_TIMEOUTS)
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), entry) as it:
        await it.until("s", "Stopped")
        await it.agent.services.command("start", "s", wait=False)
        await eventually(lambda: it.service("s").machine.pid)
        pid = it.service("s").machine.pid
        assert pid
        await it.service("s").wait_settled()
        assert it.state("s") == "Failed"
        error = it.service("s").machine.last_error or ""
        assert error.startswith("not ready after 1 s: ")
        assert f"http://127.0.0.1:{port}/health" in error
        assert message in error
        assert not psutil.pid_exists(pid)
        assert not ports.is_listening(port)
        await api.until(lambda: capability(api) == (False, "Failed"))
        assert all(not item["ready"] for write in api.writes for item in write.report["capabilities"])
        await it.shut_down()


async def test_an_exit_during_the_start_is_a_failure_with_its_code(api: FakeApi, tmp_path: Path, port: int) -> None:
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), supervised("s", port, "--exit-code", "3")) as it:
        await it.until("s", "Stopped")
        with pytest.raises(CommandError, match="exited with code 3"):
            await it.agent.services.command("start", "s", wait=True)
        await it.shut_down()


async def test_a_missing_program_is_a_failure(api: FakeApi, tmp_path: Path) -> None:
    entry = "- {id: s, type: asr, run: {command: [/no/such/program]}}\n"
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), entry) as it:
        await it.until("s", "Stopped")
        with pytest.raises(CommandError, match=r"cannot run '/no/such/program': No such file"):
            await it.agent.services.command("start", "s", wait=True)
        await it.shut_down()


async def test_a_crash_withdraws_at_once_and_ends_the_rest_of_the_group(
    api: FakeApi, tmp_path: Path, port: int
) -> None:
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), supervised("s", port, "--child"), debounce=30.0) as it:
        await it.until("s", "Stopped")
        await it.agent.services.command("start", "s", wait=True)
        await it.agent.reporter.flush()
        await api.until(lambda: capability(api) == (True, None))
        pid = it.service("s").machine.pid
        assert pid
        child = psutil.Process(pid).children()[0]
        os.kill(pid, signal.SIGSEGV)
        await api.until(lambda: capability(api) == (False, "Failed"))
        await it.service("s").wait_settled()
        assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
        (service,) = (api.report("n1") or {})["services"]
        assert (service["lastError"], service["desired"], service["pid"]) == ("killed by SIGSEGV", "Running", None)
        await it.shut_down()


async def test_desired_states_survive_and_only_a_user_changes_them(api: FakeApi, tmp_path: Path) -> None:
    first, second = free_port(), free_port()
    entries = supervised("a", first) + supervised("b", second).replace("  run:", "  autoStart: true\n  run:")
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), entries) as it:
        await it.until("b", "Running")
        await it.agent.services.command("start", "a", wait=True)
        await it.agent.services.command("stop", "b", wait=True)
        await it.shut_down()
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), entries) as it:
        await it.until("a", "Running")
        assert it.state("b") == "Stopped"
        await api.until(lambda: [s["desiredBy"] for s in (api.report("n1") or {})["services"]] == ["local", "local"])
        await it.shut_down()


async def test_term_follows_the_accepted_report(api: FakeApi, tmp_path: Path, port: int) -> None:
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), supervised("s", port), announce_seconds=20.0) as it:
        await it.until("s", "Stopped")
        await it.agent.services.command("start", "s", wait=True)
        await api.until(lambda: capability(api) == (True, None))
        pid = it.service("s").machine.pid
        assert pid
        held = Fault(lambda request: request.path.endswith("/status"), kind="hang")
        api.faults.append(held)
        await it.agent.services.command("stop", "s", wait=False)
        await api.until(lambda: held.times == 0)
        assert psutil.pid_exists(pid)
        assert it.state("s") == "Stopping"
        held.release.set()
        await it.until("s", "Stopped")
        states = [service["state"] for write in api.writes for service in write.report["services"]]
        assert "Stopping" in states
        assert not psutil.pid_exists(pid)
        await it.shut_down()


async def test_while_disconnected_term_follows_after_the_limit(api: FakeApi, tmp_path: Path, port: int) -> None:
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), supervised("s", port), announce_seconds=0.3) as it:
        await it.until("s", "Stopped")
        await it.agent.services.command("start", "s", wait=True)
        await api.until(lambda: capability(api) == (True, None))
        api.faults.append(Fault(lambda _: True, code=503, times=10**6))
        assert await it.agent.services.command("stop", "s", wait=True) == "s: Stopped"
        assert capability(api) == (True, None)
        api.faults.clear()
        await api.until(lambda: capability(api) == (False, "Stopped"))
        await it.shut_down()


async def test_kill_follows_term_and_takes_the_whole_group(api: FakeApi, tmp_path: Path, port: int) -> None:
    entry = supervised("s", port, "--ignore-term", "--child")
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), entry, stop_seconds=0.2) as it:
        await it.until("s", "Stopped")
        await it.agent.services.command("start", "s", wait=True)
        pid = it.service("s").machine.pid
        assert pid
        child = psutil.Process(pid).children()[0].pid
        assert await it.agent.services.command("stop", "s", wait=True) == "s: Stopped"
        assert not psutil.pid_exists(pid)
        assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE
        await it.shut_down()


async def sleeper(folder: Path, port: int | None) -> Process:
    """Launch a process that does nothing, as the agent does."""
    return await Process.launch(Command(("sleep", "600"), {}, folder, folder / "log", port, "mark"))


async def test_the_owner_of_the_port_is_searched_once_and_not_while_waiting(
    tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The search reads about every process of the machine, in the event loop."""
    searched: list[int] = []

    def owner(number: int) -> str:
        searched.append(number)
        return "process 1 (init)"

    monkeypatch.setattr(process, "KILL_SECONDS", 0.5)
    monkeypatch.setattr(ports, "owner", owner)
    ours = await sleeper(tmp_path, port)
    with socket.create_server(("127.0.0.1", port)), pytest.raises(StuckError, match=r"in use by process 1 \(init\)"):
        await ours.end(0.5)
    assert searched == [port]


async def test_a_group_that_has_ended_is_never_signalled_again(
    tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the time of a second attempt to free the port, the group's id may belong to foreign processes."""
    monkeypatch.setattr(process, "KILL_SECONDS", 0.2)
    ours, foreign = await sleeper(tmp_path, port), await sleeper(tmp_path, None)
    with socket.create_server(("127.0.0.1", port)):
        with pytest.raises(StuckError, match=f"port {port}"):
            await ours.end(0)
        ours.pid = foreign.pid
        with pytest.raises(StuckError, match=f"port {port}"):
            await ours.end(0.2)
    await ours.free()
    assert psutil.Process(foreign.pid).status() != psutil.STATUS_ZOMBIE
    await foreign.end(0)


async def test_a_process_that_cannot_be_watched_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_more_files(_: int) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    before = set(psutil.Process().children())
    with monkeypatch.context() as scarce:
        scarce.setattr(os, "pidfd_open", no_more_files)
        with pytest.raises(LaunchError, match="Too many open files"):
            await sleeper(tmp_path, None)
    assert set(psutil.Process().children()) == before


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM])
async def test_without_pidfds_starts_crashes_and_stops_work(
    api: FakeApi, tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """Kernels before 5.3 and some sandboxes refuse the call."""

    def refuse(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "pidfd_open", refuse)
    entry = supervised("s", port, "--child").replace("  run:", "  autoStart: true\n  run:")
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), entry) as it:
        await it.until("s", "Running")
        pid = it.service("s").machine.pid
        assert pid
        os.kill(pid, signal.SIGSEGV)
        await it.until("s", "Failed")
        assert "killed by SIGSEGV" in (it.service("s").machine.last_error or "")
        await eventually(lambda: it.state("s") == "Running" and it.service("s").machine.pid != pid)
        assert await it.agent.services.command("stop", "s", wait=True) == "s: Stopped"
        assert not ports.is_listening(port)
        await it.shut_down()


@pytest.mark.parametrize("cause", ["exit", "time-out"])
async def test_the_last_output_of_a_failed_start_is_in_the_error_and_of_this_start_only(
    api: FakeApi, tmp_path: Path, cause: str
) -> None:
    end = "exit 3" if cause == "exit" else "sleep 600"
    script = f"echo 'loading model'; echo 'CUDA: out of memory' >&2; {end}"
    limit = "" if cause == "exit" else "ready: {startSeconds: 0.5}, "
    entry = f'- {{id: s, type: asr, port: {free_port()}, {limit}run: {{command: [sh, -c, "{script}"]}}}}\n'
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), entry, restart_seconds=60) as it:
        await it.until("s", "Stopped")
        reason = "exited with code 3" if cause == "exit" else "not ready after 0.5 s"
        for _ in range(2):
            with pytest.raises(CommandError, match=reason) as caught:
                await it.agent.services.command("start", "s", wait=True)
            assert str(caught.value).endswith("; last output: loading model | CUDA: out of memory")
            assert it.service("s").status().last_output == ("loading model", "CUDA: out of memory")
        (shown,) = (await it.agent.dispatch(Request(op="status")))["services"]
        assert list(shown["lastOutput"]) == ["loading model", "CUDA: out of memory"]
        await api.until(lambda: "CUDA: out of memory" in str((api.report("n1") or {})["services"][0]["lastError"]))
        await it.agent.services.command("stop", "s", wait=True)
        assert it.service("s").status().last_error is None
        await it.shut_down()


async def test_a_service_has_the_soft_limit_of_open_files_that_the_agent_has(api: FakeApi, tmp_path: Path) -> None:
    entry = "- {id: s, type: asr, autoStart: true, run: {command: [sleep, '600']}}\n"
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), entry) as it:
        await it.until("s", "Running")
        limits = psutil.Process(it.service("s").machine.pid or 0).rlimit(psutil.RLIMIT_NOFILE)
        assert limits == resource.getrlimit(resource.RLIMIT_NOFILE)
        await it.shut_down()


async def test_a_process_name_that_is_not_utf_8_is_reported_without_an_error(
    api: FakeApi, tmp_path: Path, port: int
) -> None:
    script = (
        "import socket, time; open('/proc/self/comm', 'wb').write(b'\\xff\\xfe');"
        f"server = socket.create_server(('127.0.0.1', {port})); time.sleep(600)"
    )
    foreign = await asyncio.create_subprocess_exec(sys.executable, "-c", script)
    await eventually(lambda: ports.is_listening(port))
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), supervised("s", port)) as it:
        await it.until("s", "Stopped")
        with pytest.raises(CommandError, match="already in use by process"):
            await it.agent.services.command("start", "s", wait=True)
        await api.until(lambda: capability(api) == (False, "Failed"))
        await it.shut_down()
    foreign.kill()
    await foreign.wait()


async def test_an_unknown_service_is_named(api: FakeApi, tmp_path: Path, port: int) -> None:
    async with agent_running(tmp_path, api.kubeconfig(tmp_path), supervised("s", port)) as it:
        await it.until("s", "Stopped")
        with pytest.raises(CommandError, match="x: no such service; there are: s"):
            await it.agent.services.command("start", "x", wait=True)
        await it.shut_down()
