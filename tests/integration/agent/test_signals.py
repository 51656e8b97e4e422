"""Signals to the agent, from its first instruction to a second one during the stop (requirements A13, B10)."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from tests.support.agent_process import daemon, spawn
from tests.support.agent_run import FAKE, eventually, supervised, write_catalogue
from tests.support.fake_api import FakeApi
from tests.support.hangs import held_open

from localfleet.ports import free_port

SLEEP = "- {id: a, type: asr, autoStart: true, preStopSeconds: 0, run: {command: [sleep, '600']}}\n"
STOPPED_AT_IMPORT = """
import os, signal, sys
name, number, program = sys.argv[1], int(sys.argv[2]), sys.argv[3]
class Finder:
    def find_spec(self, found, *_):
        if found == name:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), number)
sys.meta_path.insert(0, Finder())
sys.argv = ["hotpool", *sys.argv[4:]]
from importlib import import_module
import_module(program).main()
"""
"""A program that sends itself a signal when it imports a module, as its supervisor may at any time."""


def ended_at(module: str, number: int, *words: str, program: str = "hotpool_agent.__main__") -> tuple[int, str]:
    """Run a program with a signal at an import; return its exit code and standard error."""
    command = [sys.executable, "-c", STOPPED_AT_IMPORT, module, str(number), program, *words]
    result = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    return result.returncode, result.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("module", ["click", "aiohttp", "hotpool_agent.app"])
def test_a_signal_during_the_imports_of_the_agent_ends_it_in_order(module: str, number: int) -> None:
    assert ended_at(module, number, "run", "--catalogue", "none.yaml") == (0, "")


def test_sigterm_during_the_imports_of_the_operator_ends_it_in_order() -> None:
    for module in ("click", "kopf"):
        code, errors = ended_at(module, signal.SIGTERM, "operator", program="hotpool.__main__")
        assert (code, errors) == (0, "")


async def test_sighup_in_the_first_second_reloads_and_does_not_kill(
    api: FakeApi, tmp_path: Path, environment: dict[str, str]
) -> None:
    catalogue = write_catalogue(tmp_path, SLEEP)
    words = ["run", "--catalogue", str(catalogue), "--node", "n1", "--kubeconfig", str(api.kubeconfig(tmp_path))]
    command = [sys.executable, "-c", STOPPED_AT_IMPORT, "aiohttp", str(int(signal.SIGHUP)), "hotpool_agent.__main__"]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, *words, env=environment, stderr=pipe)
    try:
        await api.until(lambda: api.report("n1"), seconds=30)
        process.terminate()
        _, errors = await asyncio.wait_for(process.communicate(), 30)
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0
    assert b"catalogue reloaded" in errors


async def test_a_signal_while_the_catalogue_cannot_be_read_ends_the_agent(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    """A named pipe with a silent writer hangs as a file of a lost network drive does."""
    os.mkfifo(tmp_path / "n1.yaml")
    with held_open(tmp_path / "n1.yaml"):
        process = await spawn(environment, "run", "--catalogue", str(tmp_path / "n1.yaml"), "--node", "n1")
        try:
            # It sleeps in read() of the pipe, after all imports.
            await eventually(lambda: "pipe_read" in wait_channels(process.pid), seconds=30)
            process.terminate()
            _, errors = await asyncio.wait_for(process.communicate(), 20)
        finally:
            if process.returncode is None:
                process.kill()
    assert (process.returncode, errors) == (0, b"")


def wait_channels(pid: int) -> str:
    """Return the kernel functions in which the threads of the process sleep."""
    return " ".join(path.read_text(encoding="ascii") for path in Path(f"/proc/{pid}/task").glob("*/wchan"))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_a_second_signal_kills_the_services_at_once(
    api: FakeApi, tmp_path: Path, environment: dict[str, str], number: signal.Signals, code: int
) -> None:
    port = free_port()
    entry = supervised("s", port, "--ignore-term").replace("  run:", "  autoStart: true\n  run:")
    patient = environment | {"HOTPOOL_AGENT_STOP_SECONDS": "300"}
    async with daemon(api, tmp_path, patient, entry) as process:
        await api.until(lambda: state(api) == "Running", seconds=20)
        process.send_signal(signal.SIGTERM)
        await api.until(lambda: state(api) == "Stopping")
        process.send_signal(number)
        await asyncio.wait_for(process.wait(), 20)
        assert process.returncode == code
    assert not [p for p in psutil.process_iter(["cmdline"]) if {str(FAKE), str(port)} <= set(p.info["cmdline"] or ())]


def state(api: FakeApi) -> str:
    """Return the state of the only service in the stored report."""
    services = (api.report("n1") or {}).get("services") or [{"state": ""}]
    return str(services[0]["state"])


@pytest.mark.parametrize("platform", ["darwin", "win32"])
@pytest.mark.parametrize("words", [["run"], ["start", "check"]])
def test_another_system_than_linux_gets_one_clear_line(platform: str, words: list[str]) -> None:
    script = f"import sys; sys.platform = {platform!r}; sys.argv = ['hotpool-agent', *{words}]\n"
    # Modules that these systems do not have.
    script += "for name in ('fcntl', 'resource', 'termios', 'pwd', 'grp'): sys.modules[name] = None\n"
    script += "from hotpool_agent.__main__ import main; main()\n"
    result = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr.splitlines() == [
        f"hotpool-agent needs Linux; this is {platform}. Only `check` and --help work here."
    ]


@pytest.mark.parametrize("words", [["run", "--help"], ["check", "missing.yaml"]])
def test_help_and_check_work_on_windows(words: list[str]) -> None:
    # The libraries were imported on the machine's own system: there they would import modules of Windows.
    script = "import os, signal, sys, subprocess\n"
    script += "from hotpool_agent.catalogue import loader; from hotpool_agent.cli import program, run, services\n"
    script += "del os.getuid, os.geteuid, os.killpg, signal.SIGHUP, signal.SIGKILL, signal.SIGCHLD\n"
    script += "for name in ('fcntl', 'resource', 'termios', 'pwd', 'grp'): sys.modules[name] = None\n"
    script += f"sys.platform = 'win32'; sys.argv = ['hotpool-agent', *{words}]\n"
    script += "from hotpool_agent.__main__ import main; main()\n"
    result = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True)
    if words[0] == "run":
        assert (result.returncode, result.stderr) == (0, "")
    else:
        assert (result.returncode, result.stderr.count("\n")) == (2, 1)
