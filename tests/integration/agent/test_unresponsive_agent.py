"""A control socket that hangs, is refused, or belongs to another user: one clear line (requirements A2, A12)."""

import asyncio
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from tests.support.agent_process import daemon
from tests.support.agent_run import supervised
from tests.support.fake_api import FakeApi

from hotpool_agent.control import protocol
from hotpool_agent.control.protocol import AgentUnreachableError, Request, send
from hotpool_agent.paths import socket_path
from localfleet.ports import free_port

NMT = "- {id: idle, type: nmt, run: {command: [sleep, '600']}}\n"
LIMIT = 0.3
OPS: tuple[protocol.Op, ...] = ("status", "report", "stop", "drain")
OTHER_USER = 65534


@contextmanager
def stopped(process: asyncio.subprocess.Process) -> Iterator[None]:
    """Stop the process for the length of the block."""
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


async def test_a_request_to_a_stopped_agent_ends_within_a_limit(
    api: FakeApi, tmp_path: Path, environment: dict[str, str]
) -> None:
    path = socket_path(tmp_path / "state" / "n1")
    async with daemon(api, tmp_path, environment, NMT) as process:
        with stopped(process):
            for op in OPS:
                with pytest.raises(AgentUnreachableError, match=f"agent at {path} hangs: no response within"):
                    await asyncio.to_thread(send, path, Request(op=op, id="idle"), limit=LIMIT)
        assert (await asyncio.to_thread(send, path, Request(op="status")))["node"] == "n1"


async def test_a_start_may_take_longer_than_the_limit_while_the_agent_responds(
    api: FakeApi, tmp_path: Path, environment: dict[str, str]
) -> None:
    path, port = socket_path(tmp_path / "state" / "n1"), free_port()
    slow = supervised("s", port, "--start-delay", "1")
    async with daemon(api, tmp_path, environment, slow):
        assert await asyncio.to_thread(send, path, Request(op="start", id="s"), limit=LIMIT) == "s: Running"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "agent.sock"


def test_a_full_queue_of_connections_is_a_hanging_agent(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as first:
        server.bind(str(path))
        server.listen(0)
        first.connect(str(path))
        with pytest.raises(AgentUnreachableError, match=r"hangs: no response within 0\.3 s"):
            send(path, Request(op="status"), limit=LIMIT)


def test_the_socket_of_an_ended_agent_is_refused_with_its_path(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
    with pytest.raises(AgentUnreachableError, match=f"^no agent responds at {path}: Connection refused$"):
        send(path, Request(op="status"))


@pytest.mark.parametrize("answer", [b"hello\n", b"[]\n", b"{}\n", b'{"ok": true}\n', b"\xff\n"])
async def test_another_program_on_the_socket_is_named(path: Path, answer: bytes) -> None:
    async def respond(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        writer.close()

    server = await asyncio.start_unix_server(respond, path)
    with pytest.raises(AgentUnreachableError, match=f"^what listens at {path} is not an agent$"):
        await asyncio.to_thread(send, path, Request(op="status"))
    server.close()


@contextmanager
def without_access(folder: Path) -> Iterator[None]:
    """Take this process's right to enter the folder for the length of the block."""
    if os.geteuid() == 0:
        folder.chmod(0o700)
        os.seteuid(OTHER_USER)
        try:
            yield
        finally:
            os.seteuid(0)
        return
    folder.chmod(0)
    try:
        yield
    finally:
        folder.chmod(0o700)


def test_a_socket_of_another_user_names_the_owner() -> None:
    with TemporaryDirectory() as name:
        folder = Path(name) / "n1"
        folder.mkdir()
        Path(name).chmod(0o711)
        expected = f"{folder} belongs to user {folder.stat().st_uid}; run the command as that user$"
        with without_access(folder), pytest.raises(AgentUnreachableError, match=expected):
            send(folder / "agent.sock", Request(op="status"))
