"""Probes of ports, processes and files (requirements A3, A5): real sockets, processes and files."""

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final
from uuid import uuid4

import psutil
import pytest
from tests.support.agent_run import FAKE, eventually
from tests.support.hangs import busy_threads
from tests.support.probing import observe_spec, running_prober, until_result

from hotpool_agent.probes import processes
from hotpool_agent.probes.http_tcp import ProbeResult
from hotpool_agent.probes.prober import Prober
from localfleet.ports import free_port

IDLE: Final = "import time; time.sleep(600)"


@pytest.fixture
async def prober(tmp_path: Path) -> AsyncIterator[Prober]:
    async with running_prober(tmp_path) as prober:
        yield prober


@pytest.fixture
def name() -> str:
    """Return a program name that no other process has, short enough for the kernel."""
    return f"hp{uuid4().hex[:12]}"


@asynccontextmanager
async def sleeping(*arguments: str, argv0: str | None = None, program: Path | None = None) -> AsyncIterator[int]:
    """Provide the pid of a process that does nothing, under the given name."""
    command = [argv0 or sys.executable, "-c", IDLE, *arguments]
    process = await asyncio.create_subprocess_exec(*command, executable=program or sys.executable, env=_environment())
    try:
        # The kernel sets the command line a moment after exec has returned.
        await eventually(lambda: psutil.Process(process.pid).cmdline())
        yield process.pid
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@contextmanager
def unreaped(program: Path) -> Iterator[int]:
    """Provide a pid as `sleeping`, but asyncio does not reap the child, so it stays a zombie when it ends."""
    child = subprocess.Popen([program, "-c", IDLE], env=_environment())
    try:
        yield child.pid
    finally:
        child.kill()
        child.wait()


async def test_http_probes_work_as_for_readiness(prober: Prober) -> None:
    port = free_port()
    check = observe_spec({"http": {"path": "/health", "expectBody": '"ok"'}})
    assert (await prober.probe(check, port)).absent
    process = await asyncio.create_subprocess_exec(sys.executable, FAKE, "--port", str(port))
    try:
        await until_result(prober, check, lambda result: result.ok, port)
        wrong = observe_spec({"http": {"path": "/health", "expectStatus": 204}})
        url, refused = f"http://127.0.0.1:{port}/health", f"http://[::1]:{port}/health: "
        result = await prober.probe(wrong, port)
        assert result.detail.startswith(f"HTTP 200 from {url}, not 204; {refused}")
        assert not result.absent
    finally:
        process.kill()
        await process.wait()


async def test_tcp_uses_the_port_of_the_probe_or_of_the_service(prober: Prober) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert await prober.probe(observe_spec({"tcp": {}}), port) == ProbeResult(ok=True)
        assert await prober.probe(observe_spec({"tcp": {"port": port}}), free_port()) == ProbeResult(ok=True)
    result = await prober.probe(observe_spec({"tcp": {}}), port)
    assert (result.ok, result.absent) == (False, True)


async def test_a_process_is_found_by_its_program(prober: Prober, tmp_path: Path, name: str) -> None:
    program = tmp_path / name
    program.symlink_to(sys.executable)
    check = observe_spec({"process": {"name": name}})
    assert await prober.probe(check, None) == ProbeResult(ok=False, absent=True, detail=f"no process {name}")
    async with sleeping(argv0="disguised", program=program) as pid:
        assert await prober.probe(check, None) == ProbeResult(ok=True, pid=pid)
        part = observe_spec({"process": {"name": name[:-1]}})
        assert (await prober.probe(part, None)).absent
    assert (await prober.probe(check, None)).absent


async def test_a_process_is_found_by_its_first_argument_and_another(prober: Prober, name: str) -> None:
    long = f"{name}-longer-than-the-kernel-keeps"
    async with sleeping("--port", "6007", argv0=f"/opt/bin/{long}") as pid:
        assert await prober.probe(observe_spec({"process": {"name": long}}), None) == ProbeResult(ok=True, pid=pid)
        found = observe_spec({"process": {"name": long, "argument": "6007"}})
        assert await prober.probe(found, None) == ProbeResult(ok=True, pid=pid)
        for argument in ("600", "port", f"/opt/bin/{long}"):
            missing = observe_spec({"process": {"name": long, "argument": argument}})
            expected = ProbeResult(ok=False, absent=True, detail=f"no process {long} with argument {argument}")
            assert await prober.probe(missing, None) == expected


async def test_of_several_processes_the_same_one_is_reported_while_it_lives(prober: Prober, name: str) -> None:
    check = observe_spec({"process": {"name": name}})
    async with sleeping(argv0=name) as first, sleeping(argv0=name) as second:
        lower, higher = sorted((first, second))
        assert processes.by_name(name, None, None).pid == lower
        assert processes.by_name(name, None, higher).pid == higher
        assert (await prober.probe(check, None)).pid == lower
        psutil.Process(lower).kill()
        await until_result(prober, check, lambda result: result == ProbeResult(ok=True, pid=higher))


async def test_a_process_is_searched_at_its_last_pid_first(
    prober: Prober, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = observe_spec({"process": {"name": name}})
    async with sleeping(argv0=name) as pid:
        assert (await prober.probe(check, None)).pid == pid
        monkeypatch.setattr(processes, "_candidates", lambda first: [first])
        assert (await prober.probe(check, None)).pid == pid


async def test_neither_a_zombie_nor_the_agent_itself_counts(prober: Prober, tmp_path: Path, name: str) -> None:
    (tmp_path / name).symlink_to(sys.executable)
    by_name, by_file = observe_spec({"process": {"name": name}}), observe_spec({"process": {"pidFile": "run.pid"}})
    with unreaped(tmp_path / name) as child:
        (tmp_path / "run.pid").write_text(str(child))
        await until_result(prober, by_name, lambda result: result.pid == child)
        assert (await prober.probe(by_file, None)).pid == child
        psutil.Process(child).kill()
        await eventually(lambda: psutil.Process(child).status() == psutil.STATUS_ZOMBIE)
        assert (await prober.probe(by_name, None)).absent
        assert (await prober.probe(by_file, None)).absent
    own = psutil.Process().cmdline()
    agent = observe_spec({"process": {"name": Path(own[0]).name, "argument": own[-1]}})
    assert (await prober.probe(agent, None)).pid != os.getpid()


async def test_a_pid_file_is_relative_to_the_catalogue(prober: Prober, tmp_path: Path, name: str) -> None:
    file = tmp_path / "run.pid"
    check = observe_spec({"process": {"pidFile": "run.pid", "argument": "--serve"}})
    assert (await prober.probe(check, None)).absent
    file.write_text("soon\n")
    assert await prober.probe(check, None) == ProbeResult(ok=False, detail=f"{file}: holds no process id")
    async with sleeping("--serve", argv0=name) as pid:
        for more in ("", "/var/lib/service\n8080\n"):  # lines that some services add
            file.write_text(f"{pid}\n{more}")
            assert await prober.probe(check, None) == ProbeResult(ok=True, pid=pid)
    gone = await prober.probe(check, None)
    assert (gone.ok, gone.absent) == (False, True)


async def test_a_foreign_process_that_reuses_the_pid_is_not_the_service(prober: Prober, tmp_path: Path) -> None:
    async with sleeping() as pid:
        (tmp_path / "run.pid").write_text(str(pid))
        assert (await prober.probe(observe_spec({"process": {"pidFile": "run.pid"}}), None)).pid == pid
        checked = observe_spec({"process": {"pidFile": "run.pid", "argument": "--serve"}})
        assert (await prober.probe(checked, None)).absent


async def test_a_file_must_exist_and_be_recent(prober: Prober, tmp_path: Path) -> None:
    file = tmp_path / "beat"
    exists = observe_spec({"file": {"path": "beat"}})
    fresh = observe_spec({"file": {"path": str(file), "maxAgeSeconds": 60}})
    for check in (exists, fresh):
        result = await prober.probe(check, None)
        assert (result.ok, result.absent) == (False, True)
    file.touch()
    assert await prober.probe(exists, None) == await prober.probe(fresh, None) == ProbeResult(ok=True)
    for seconds in (-120, 120):
        os.utime(file, (time.time() + seconds,) * 2)
        assert await prober.probe(exists, None) == ProbeResult(ok=True)
        # The detail must not contain the age, which would make each report differ from the one before.
        assert await prober.probe(fresh, None) == ProbeResult(ok=False, detail=f"{file}: not modified within 60 s")


async def test_a_probe_that_hangs_is_a_failure_and_delays_no_other(prober: Prober, tmp_path: Path) -> None:
    pipe = tmp_path / "run.pid"
    os.mkfifo(pipe)  # Like a file on a network drive whose server is down: opening it does not return.
    check, before = observe_spec({"process": {"pidFile": "run.pid"}}, 0.05), set(busy_threads())
    for _ in range(5):
        assert await prober.probe(check, None) == ProbeResult(ok=False, detail="no answer in 0.05 s")
    (hanging,) = set(busy_threads()) - before
    (tmp_path / "beat").touch()
    assert (await prober.probe(observe_spec({"file": {"path": "beat"}}), None)).ok
    with pipe.open("w") as writer:
        writer.write(str(os.getpid()))
    await eventually(lambda: hanging not in busy_threads())
    pipe.unlink()
    pipe.write_text(str(os.getpid()))
    assert await prober.probe(observe_spec({"process": {"pidFile": "run.pid"}}), None) == ProbeResult(
        ok=True, pid=os.getpid()
    )


def _environment() -> dict[str, str]:
    """Return an environment in which Python finds its library under any program name."""
    return os.environ | {"PYTHONHOME": sys.base_prefix}
