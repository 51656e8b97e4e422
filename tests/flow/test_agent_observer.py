"""The five ways to see an observed service (behaviour A3, A5): real sockets, processes and files.

For systemd a stand-in bus: real D-Bus messages over a real socket, no real systemd.
"""

import asyncio
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import psutil
import pytest
from tests.services.agent_run import FAKE, eventually, free_port
from tests.services.fake_bus import FakeBus, Unit, fake_bus

from hotpool_agent import probe
from hotpool_agent.catalogue import Observe
from hotpool_agent.observer import Observer
from hotpool_agent.probe import Answer

UNIT: Final = "whisper.service"
ASKED: Final = {"systemd": {"unit": UNIT}}
IDLE: Final = "import time; time.sleep(600)"
PATIENT: Final = 20.0
"""A time-out that nobody is to meet."""


@pytest.fixture
async def observer(tmp_path: Path) -> AsyncIterator[Observer]:
    async with probe.new_session() as session:
        observer = Observer(session, tmp_path)
        yield observer
        await observer.close()


@pytest.fixture
async def bus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FakeBus]:
    async with fake_bus(tmp_path) as bus:
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", bus.address)
        yield bus


@pytest.fixture
def name() -> str:
    """A program name that no other process has, short enough for the kernel."""
    return f"hp{uuid4().hex[:12]}"


def how(way: dict[str, Any], seconds: float = PATIENT) -> Observe:
    return Observe.model_validate(way | {"timeoutSeconds": seconds})


@asynccontextmanager
async def sleeping(*arguments: str, argv0: str | None = None, program: Path | None = None) -> AsyncIterator[int]:
    """The pid of a process that does nothing, under the given name."""
    command = [argv0 or sys.executable, "-c", IDLE, *arguments]
    process = await asyncio.create_subprocess_exec(*command, executable=program or sys.executable, env=_environment())
    try:
        yield process.pid
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@contextmanager
def unreaped(argv0: str) -> Iterator[int]:
    """As `sleeping`, but asyncio does not know the child, so it stays a zombie when it ends."""
    child = subprocess.Popen([argv0, "-c", IDLE], executable=sys.executable, env=_environment())
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
        await _until(lambda: observer.ask(check, port), lambda answer: answer.ok)
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
    async with sleeping(argv0=name) as first:
        assert (await observer.ask(check, None)).pid == first
        async with sleeping(argv0=name) as second:
            # Pids may have wrapped round: the one known is asked for first, whichever is lower.
            assert [(await observer.ask(check, None)).pid for _ in range(3)] == [first] * 3
            psutil.Process(first).kill()
            await _until(lambda: observer.ask(check, None), lambda answer: answer == Answer(ok=True, pid=second))


async def test_a3_neither_a_zombie_nor_the_agent_itself_counts(observer: Observer, name: str) -> None:
    check = how({"process": {"name": name}})
    with unreaped(name) as child:
        await _until(lambda: observer.ask(check, None), lambda answer: answer.pid == child)
        psutil.Process(child).kill()
        await eventually(lambda: psutil.Process(child).status() == psutil.STATUS_ZOMBIE)
        assert (await observer.ask(check, None)).absent
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
    threads = threading.active_count()
    for _ in range(5):
        assert await observer.ask(check, None) == Answer(ok=False, detail="no answer in 0.05 s")
    assert threading.active_count() == threads + 1
    (tmp_path / "beat").touch()
    assert (await observer.ask(how({"file": {"path": "beat"}}), None)).ok
    with pipe.open("w") as writer:
        writer.write(str(os.getpid()))
    await eventually(lambda: threading.active_count() == threads)
    pipe.unlink()
    pipe.write_text(str(os.getpid()))
    assert await observer.ask(how({"process": {"pidFile": "run.pid"}}), None) == Answer(ok=True, pid=os.getpid())


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("active", Answer(ok=True, pid=4711)),
        ("reloading", Answer(ok=True, pid=4711)),
        ("inactive", Answer(ok=False, absent=True, detail=f"{UNIT}: inactive")),
        ("failed", Answer(ok=False, detail=f"{UNIT}: failed")),
        ("activating", Answer(ok=False, detail=f"{UNIT}: activating")),
        ("deactivating", Answer(ok=False, detail=f"{UNIT}: deactivating")),
        ("what-comes-later", Answer(ok=False, detail=f"{UNIT}: what-comes-later")),
    ],
)
async def test_a3_a_unit_is_what_systemd_says(observer: Observer, bus: FakeBus, state: str, expected: Answer) -> None:
    bus.units[UNIT] = Unit(state, 4711)
    assert await observer.ask(how(ASKED), None) == expected


async def test_a3_a_unit_that_is_not_loaded_is_absent(observer: Observer, bus: FakeBus) -> None:
    detail = f"{UNIT}: Unit {UNIT} not loaded."
    assert await observer.ask(how(ASKED), None) == Answer(ok=False, absent=True, detail=detail)
    assert bus.connections == 1


async def test_a3_a_unit_without_a_main_process(observer: Observer, bus: FakeBus) -> None:
    bus.units |= {UNIT: Unit(), "speech.target": Unit()}
    assert await observer.ask(how(ASKED), None) == Answer(ok=True)
    assert await observer.ask(how({"systemd": {"unit": "speech.target"}}), None) == Answer(ok=True)


async def test_a3_one_connection_serves_all_questions(observer: Observer, bus: FakeBus) -> None:
    bus.units |= {f"s{number}.service": Unit(pid=number) for number in range(1, 9)}
    checks = [how({"systemd": {"unit": unit}}) for unit in bus.units]
    answers = await asyncio.gather(*(observer.ask(check, None) for check in checks * 3))
    assert [answer.pid for answer in answers] == [*range(1, 9)] * 3
    assert bus.connections == 1


async def test_a3_the_user_s_systemd_is_on_another_bus(
    observer: Observer, bus: FakeBus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus.units[UNIT] = Unit(pid=1)
    check = how({"systemd": {"unit": UNIT, "user": True}})
    (tmp_path / "user").mkdir()
    async with fake_bus(tmp_path / "user") as users:
        users.units[UNIT] = Unit(pid=2)
        monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", users.address)
        assert (await observer.ask(how(ASKED), None)).pid == 1
        assert (await observer.ask(check, None)).pid == 2
        # Without an address: where systemd itself puts the user's bus.
        monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS")
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "user"))
        async with probe.new_session() as session:
            another = Observer(session, tmp_path)
            assert (await another.ask(check, None)).pid == 2
            await another.close()


async def test_a5_no_bus_is_a_failure_and_no_absence(
    observer: Observer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for address, words in (
        (f"unix:path={tmp_path}/none", "No such file or directory"),
        ("nonsense", "address did not contain a transport"),
        ("carrier:pigeon=1", "got unknown address transport: carrier"),
    ):
        monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", address)
        assert await observer.ask(how(ASKED), None) == Answer(ok=False, detail=f"system bus: {words}")


async def test_a5_a_bus_without_systemd_or_that_lets_nobody_in(observer: Observer, bus: FakeBus) -> None:
    bus.systemd = False
    assert await observer.ask(how(ASKED), None) == Answer(ok=False, detail="systemd is not on the bus")
    await bus.die()
    await bus.start()
    bus.refused = True
    refused = await observer.ask(how(ASKED), None)
    assert (refused.ok, refused.absent) == (False, False)
    assert refused.detail.startswith("system bus: authentication failed")


async def test_a5_a_bus_that_dies_and_comes_back(observer: Observer, bus: FakeBus) -> None:
    bus.units[UNIT] = Unit(pid=7)
    assert (await observer.ask(how(ASKED), None)).ok
    await bus.die()
    gone = await observer.ask(how(ASKED), None)
    assert (gone.ok, gone.absent) == (False, False)
    await bus.start()
    await _until(lambda: observer.ask(how(ASKED), None), lambda answer: answer == Answer(ok=True, pid=7))
    assert bus.open == 1


async def test_a5_a_bus_that_dies_during_a_question(observer: Observer, bus: FakeBus) -> None:
    bus.silent = {"GetUnit"}
    asked = asyncio.create_task(observer.ask(how(ASKED), None))
    await eventually(lambda: "GetUnit" in bus.calls)
    await bus.die()
    assert await asked == Answer(ok=False, detail="system bus: the connection was closed")


@pytest.mark.parametrize("step", ["AUTH", "Hello", "GetUnit", "Get"])
async def test_a5_a_bus_that_never_answers(observer: Observer, bus: FakeBus, step: str) -> None:
    bus.units[UNIT] = Unit()
    bus.silent = {step}
    for _ in range(3):
        assert await observer.ask(how(ASKED, 0.05), None) == Answer(ok=False, detail="no answer in 0.05 s")
    bus.silent = set()
    assert await observer.ask(how(ASKED), None) == Answer(ok=True)
    # Nothing is left of the connections that were given up.
    await eventually(lambda: bus.open == 1)
    assert bus.connections > 1


async def test_a5_a_question_given_up_does_not_end_another(observer: Observer, bus: FakeBus) -> None:
    bus.units |= {UNIT: Unit(pid=7), "slow.service": Unit(pid=8)}
    bus.silent = {UNIT, "slow.service"}
    slow = asyncio.create_task(observer.ask(how({"systemd": {"unit": "slow.service"}}), None))
    await eventually(lambda: "GetUnit" in bus.calls)
    assert not (await observer.ask(how(ASKED, 0.05), None)).ok
    assert not slow.done()
    assert bus.open == 1
    bus.silent = set()
    assert (await observer.ask(how(ASKED), None)).pid == 7
    assert bus.open == 2
    slow.cancel()
    await eventually(lambda: bus.open == 1)


def _environment() -> dict[str, str]:
    """With it Python finds its library whatever its name."""
    return os.environ | {"PYTHONHOME": sys.base_prefix}


async def _until(ask: Callable[[], Any], good: Callable[[Answer], bool]) -> None:
    async with asyncio.timeout(PATIENT):
        while not good(await ask()):  # noqa: ASYNC110 - nothing tells when another process has done it
            await asyncio.sleep(0.01)
