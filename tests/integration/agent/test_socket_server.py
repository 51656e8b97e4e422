"""Local socket with slow, dead or too many clients (requirement A2): real sockets and a fake dispatcher."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from tests.support.agent_run import eventually

from hotpool_agent.control import socket_server
from hotpool_agent.control.protocol import Request, RequestError, send
from hotpool_agent.control.socket_server import Limits

BIG = "x" * (8 * 1024 * 1024)
"""More than the socket buffers of both ends hold."""
STATUS = b'{"op": "status"}\n'
START = b'{"op": "start", "id": "s"}\n'


class FakeDispatcher:
    """Dispatcher whose `report` returns much, and whose `start` waits for `release`."""

    def __init__(self) -> None:
        self.release = asyncio.Event()
        self.started = self.finished = 0

    async def dispatch(self, request: Request) -> Any:
        if request.op == "report":
            return BIG
        if request.op == "start":
            self.started += 1
            await self.release.wait()
            self.finished += 1
        return request.op


@asynccontextmanager
async def serving(folder: Path, dispatch: Callable[[Request], Awaitable[Any]], limits: Limits) -> AsyncIterator[Path]:
    path = folder / "s" / "agent.sock"
    server = await socket_server.serve(path, dispatch, limits)
    yield path
    server.close()


async def is_served(path: Path) -> bool:
    """Return True if a new client gets its response."""
    with suppress(RequestError):
        return bool(await asyncio.wait_for(asyncio.to_thread(send, path, Request(op="status")), 30) == "status")
    return False


async def wait_served(path: Path, *, expected: bool = True) -> None:
    """Wait until new clients get their response or, with `expected` False, an error."""
    async with asyncio.timeout(30):
        while await is_served(path) is not expected:  # noqa: ASYNC110 - the server has no event for it
            await asyncio.sleep(0.02)


async def test_a_silent_client_is_disconnected_and_blocks_no_other_client(tmp_path: Path) -> None:
    async with serving(tmp_path, FakeDispatcher().dispatch, Limits(read_seconds=0.3)) as path:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b'{"op": "sta')
        assert await is_served(path)
        assert await asyncio.wait_for(reader.read(), 30) == b""
        writer.close()


async def test_a_client_that_does_not_read_its_response_is_disconnected_and_blocks_no_other_client(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path, FakeDispatcher().dispatch, Limits(connections=1, write_seconds=0.3)) as path:
        with socket.socket(socket.AF_UNIX) as slow:
            slow.connect(str(path))
            slow.sendall(b'{"op": "report"}\n')
            # The only connection becomes free although the client keeps its end open.
            await wait_served(path)
            slow.settimeout(30)
            received = 0
            with suppress(ConnectionError):
                while chunk := await asyncio.to_thread(slow.recv, 1024 * 1024):
                    received += len(chunk)
            assert received < len(BIG)


async def test_connections_are_limited_and_the_next_one_gets_an_error(tmp_path: Path) -> None:
    async with serving(tmp_path, FakeDispatcher().dispatch, Limits(connections=3)) as path:
        connections = [await asyncio.open_unix_connection(path) for _ in range(3)]
        for reader, writer in connections:
            writer.write(STATUS)
            assert json.loads(await reader.readline())["ok"]
        reader, writer = await asyncio.open_unix_connection(path)
        assert "too many" in json.loads(await asyncio.wait_for(reader.readline(), 30))["error"]
        writer.close()
        assert not await is_served(path)
        connections[0][1].close()
        await wait_served(path)
        for _, writer in connections:
            writer.close()


async def abandon_request(path: Path, dispatcher: FakeDispatcher) -> None:
    """Request a start, and disconnect as soon as it is running."""
    _, writer = await asyncio.open_unix_connection(path)
    before = dispatcher.started
    writer.write(START)
    await eventually(lambda: dispatcher.started > before)
    writer.close()
    await writer.wait_closed()


async def test_a_client_that_disconnects_frees_its_connection_and_its_request_continues(tmp_path: Path) -> None:
    dispatcher = FakeDispatcher()
    async with serving(tmp_path, dispatcher.dispatch, Limits(connections=2)) as path:
        await abandon_request(path, dispatcher)
        # Both connections are free again: one is used here, the other by each new client.
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(STATUS)
        assert json.loads(await reader.readline())["ok"]
        await wait_served(path)
        writer.close()
        await abandon_request(path, dispatcher)
        # Two requests without a client are the maximum.
        await wait_served(path, expected=False)
        assert dispatcher.finished == 0
        dispatcher.release.set()
        await wait_served(path)
        assert dispatcher.finished == 2


async def test_a_client_that_has_closed_its_sending_side_gets_its_response(tmp_path: Path) -> None:
    dispatcher = FakeDispatcher()
    async with serving(tmp_path, dispatcher.dispatch, Limits()) as path:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(START)
        writer.write_eof()
        await eventually(lambda: dispatcher.started)
        line = asyncio.create_task(reader.readline())
        # Longer than the interval in which the server checks the connection.
        done, _ = await asyncio.wait({line}, timeout=1.5)
        assert not done
        dispatcher.release.set()
        assert json.loads(await asyncio.wait_for(line, 30)) == {"ok": True, "result": "start"}
        writer.close()


async def test_an_unknown_operation_or_field_is_refused_with_the_version_of_the_agent(tmp_path: Path) -> None:
    async with serving(tmp_path, FakeDispatcher().dispatch, Limits()) as path:
        reader, writer = await asyncio.open_unix_connection(path)
        for line in (b'{"op": "levitate"}\n', b'{"op": "start", "id": "s", "gently": true}\n'):
            writer.write(line)
            response = json.loads(await reader.readline())
            assert not response["ok"]
            assert "version" in response["error"]
        writer.close()
