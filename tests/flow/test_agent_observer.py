"""Four ways to see an observed service (behaviour A3, A5): real sockets, processes and files."""

import asyncio
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Final
from uuid import uuid4

import psutil
import pytest
from tests.services.agent_run import FAKE, eventually
from tests.services.observing import how, observing, until_seen

from hotpool_agent.observing import processes
from hotpool_agent.observing.observer import Observer
from hotpool_agent.observing.probe import Answer
from localfleet.ports import free_port

IDLE: Final = "import time; time.sleep(600)"


@pytest.fixture
async def observer(tmp_path: Path) -> AsyncIterator[Observer]:
    async with observing(tmp_path) as observer:
        yield observer


@pytest.fixture
def name() -> str:
    """A program name that no other process has, short enough for the kernel."""
    return f"hp{uuid4().hex[:12]}"


@asynccontextmanager
async def sleeping(*arguments: str, argv0: str | None = None, program: Path | None = None) -> AsyncIterator[int]:
    """The pid of a process that does nothing, under the given name."""
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
    """As `sleeping`, but asyncio does not know the child, so it stays a zombie when it ends."""
    child = subprocess.Popen([program, "-c", IDLE], env=_environment())
    try:
        yield child.pid
    finally:
        child.kill()
        child.wait()


async def test_a3_http_is_asked_as_for_readiness(observer: Observer) -> None:
    port = free_port()
    check = how({"http": {"path": "/health", "expectBody": '"ok"'}})
    assert (await observer.ask(check, port)).absent
    process = await asyncio.create_subprocess_exec(sys.executable, FAKE, "--port", str(port))
    try:
        await until_seen(observer, check, lambda answer: answer.ok, port)
        wrong = how({"http": {"path": "/health", "expectStatus": 204}})
        assert await observer.ask(wrong, port) == Answer(ok=False, detail="GET /health: status 200, not 204")
    finally:
        process.kill()
        await process.wait()


async def test_a3_tcp_the_probe_s_port_or_the_service_s(observer: Observer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert await observer.ask(how({"tcp": {}}), port) == Answer(ok=True)
        assert await observer.ask(how({"tcp": {"port": port}}), free_port()) == Answer(ok=True)
    answer = await observer.ask(how({"tcp": {}}), port)
    assert (answer.ok, answer.absent) == (False, True)


async def test_a3_a_process_by_its_program(observer: Observer, tmp_path: Path, name: str) -> None:
    program = tmp_path / name
    program.symlink_to(sys.executable)
    check = how({"process": {"name": name}})
    assert await observer.ask(check, None) == Answer(ok=False, absent=True, detail=f"no process {name}")
    async with sleeping(argv0="disguised", program=program) as pid:
        assert await observer.ask(check, None) == Answer(ok=True, pid=pid)
        part = how({"process": {"name": name[:-1]}})
        assert (await observer.ask(part, None)).absent
    assert (await observer.ask(check, None)).absent


async def test_a3_a_process_by_its_first_argument_and_another(observer: Observer, name: str) -> None:
    long = f"{name}-longer-than-the-kernel-keeps"
    async with sleeping("--port", "6007", argv0=f"/opt/bin/{long}") as pid:
        assert await observer.ask(how({"process": {"name": long}}), None) == Answer(ok=True, pid=pid)
        found = how({"process": {"name": long, "argument": "6007"}})
        assert await observer.ask(found, None) == Answer(ok=True, pid=pid)
        for argument in ("600", "port", f"/opt/bin/{long}"):
            missing = how({"process": {"name": long, "argument": argument}})
            expected = Answer(ok=False, absent=True, detail=f"no process {long} with argument {argument}")
            assert await observer.ask(missing, None) == expected


async def test_a3_of_several_processes_the_same_one_is_named_while_it_lives(observer: Observer, name: str) -> None:
    check = how({"process": {"name": name}})
    async with sleeping(argv0=name) as first, sleeping(argv0=name) as second:
        lower, higher = sorted((first, second))
        assert processes.by_name(name, None, None).pid == lower
        assert processes.by_name(name, None, higher).pid == higher
        assert (await observer.ask(check, None)).pid == lower
        psutil.Process(lower).kill()
        await until_seen(observer, check, lambda answer: answer == Answer(ok=True, pid=higher))


async def test_a3_a_process_is_looked_for_where_it_was(
    observer: Observer, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = how({"process": {"name": name}})
    async with sleeping(argv0=name) as pid:
        assert (await observer.ask(check, None)).pid == pid
        monkeypatch.setattr(processes, "_candidates", lambda first: [first])
        assert (await observer.ask(check, None)).pid == pid


async def test_a3_neither_a_zombie_nor_the_agent_itself_counts(observer: Observer, tmp_path: Path, name: str) -> None:
    (tmp_path / name).symlink_to(sys.executable)
    by_name, by_file = how({"process": {"name": name}}), how({"process": {"pidFile": "run.pid"}})
    with unreaped(tmp_path / name) as child:
        (tmp_path / "run.pid").write_text(str(child))
        await until_seen(observer, by_name, lambda answer: answer.pid == child)
        assert (await observer.ask(by_file, None)).pid == child
        psutil.Process(child).kill()
        await eventually(lambda: psutil.Process(child).status() == psutil.STATUS_ZOMBIE)
        assert (await observer.ask(by_name, None)).absent
        assert (await observer.ask(by_file, None)).absent
    own = psutil.Process().cmdline()
    agent = how({"process": {"name": Path(own[0]).name, "argument": own[-1]}})
    assert (await observer.ask(agent, None)).pid != os.getpid()


async def test_a3_a_pid_file_relative_to_the_catalogue(observer: Observer, tmp_path: Path, name: str) -> None:
    file = tmp_path / "run.pid"
    check = how({"process": {"pidFile": "run.pid", "argument": "--serve"}})
    assert (await observer.ask(check, None)).absent
    file.write_text("soon\n")
    assert await observer.ask(check, None) == Answer(ok=False, detail=f"{file}: holds no process id")
    async with sleeping("--serve", argv0=name) as pid:
        file.write_text(f"{pid}\n")
        assert await observer.ask(check, None) == Answer(ok=True, pid=pid)
    gone = await observer.ask(check, None)
    assert (gone.ok, gone.absent) == (False, True)


async def test_a3_a_pid_that_a_stranger_inherited_is_not_the_service(observer: Observer, tmp_path: Path) -> None:
    async with sleeping() as pid:
        (tmp_path / "run.pid").write_text(str(pid))
        assert (await observer.ask(how({"process": {"pidFile": "run.pid"}}), None)).pid == pid
        checked = how({"process": {"pidFile": "run.pid", "argument": "--serve"}})
        assert (await observer.ask(checked, None)).absent


async def test_a3_a_file_that_is_there_and_fresh(observer: Observer, tmp_path: Path) -> None:
    file = tmp_path / "beat"
    exists = how({"file": {"path": "beat"}})
    fresh = how({"file": {"path": str(file), "maxAgeSeconds": 60}})
    for check in (exists, fresh):
        answer = await observer.ask(check, None)
        assert (answer.ok, answer.absent) == (False, True)
    file.touch()
    assert await observer.ask(exists, None) == await observer.ask(fresh, None) == Answer(ok=True)
    for seconds in (-120, 120):
        os.utime(file, (time.time() + seconds,) * 2)
        assert await observer.ask(exists, None) == Answer(ok=True)
        # Its age is not told: it would make each report differ from the one before.
        assert await observer.ask(fresh, None) == Answer(ok=False, detail=f"{file}: not modified within 60 s")


async def test_a5_a_look_that_hangs_is_a_failure_and_holds_nothing_up(observer: Observer, tmp_path: Path) -> None:
    pipe = tmp_path / "run.pid"
    os.mkfifo(pipe)  # As a file on a network drive whose server is away: opening it does not return.
    check = how({"process": {"pidFile": "run.pid"}}, 0.05)
    before = set(threading.enumerate())
    for _ in range(5):
        assert await observer.ask(check, None) == Answer(ok=False, detail="no answer in 0.05 s")
    (hanging,) = set(threading.enumerate()) - before
    (tmp_path / "beat").touch()
    assert (await observer.ask(how({"file": {"path": "beat"}}), None)).ok
    with pipe.open("w") as writer:
        writer.write(str(os.getpid()))
    await eventually(lambda: not hanging.is_alive())
    pipe.unlink()
    pipe.write_text(str(os.getpid()))
    assert await observer.ask(how({"process": {"pidFile": "run.pid"}}), None) == Answer(ok=True, pid=os.getpid())


def _environment() -> dict[str, str]:
    """With it Python finds its library whatever its name."""
    return os.environ | {"PYTHONHOME": sys.base_prefix}
