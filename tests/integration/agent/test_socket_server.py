"""The local socket under clients that are slow, dead or too many (requirement A2): real sockets, a stand-in behind."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from tests.support.agent_run import eventually

from hotpool_agent.control import socket_server
from hotpool_agent.control.protocol import Request, RequestError, ask
from hotpool_agent.control.socket_server import Limits

BIG = "x" * (8 * 1024 * 1024)
"""More than the buffers between two processes hold."""
ASK = b'{"op": "status"}\n'
START = b'{"op": "start", "id": "s"}\n'


class StandIn:
    """`status` is answered at once, `report` with much, `start` not before `release`."""

    def __init__(self) -> None:
        self.release = asyncio.Event()
        self.begun = self.finished = 0

    async def dispatch(self, request: Request) -> Any:
        if request.op == "report":
            return BIG
        if request.op == "start":
            self.begun += 1
            await self.release.wait()
            self.finished += 1
        return request.op


@asynccontextmanager
async def serving(folder: Path, dispatch: Callable[[Request], Awaitable[Any]], limits: Limits) -> AsyncIterator[Path]:
    path = folder / "s" / "agent.sock"
    server = await socket_server.serve(path, dispatch, limits)
    yield path
    server.close()


async def answers(path: Path) -> bool:
    """Whether a new client gets its answer."""
    with suppress(RequestError):
        return bool(await asyncio.wait_for(asyncio.to_thread(ask, path, Request(op="status")), 30) == "status")
    return False


async def until_answered(path: Path, *, expected: bool = True) -> None:
    """Wait until new clients get their answer, or (`expected` False) until they get none."""
    async with asyncio.timeout(30):
        while await answers(path) is not expected:  # noqa: ASYNC110 - the server tells nobody
            await asyncio.sleep(0.02)


async def test_a_silent_client_loses_its_connection_and_blocks_nobody(tmp_path: Path) -> None:
    async with serving(tmp_path, StandIn().dispatch, Limits(ask_seconds=0.3)) as path:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b'{"op": "sta')
        assert await answers(path)
        assert await asyncio.wait_for(reader.read(), 30) == b""
        writer.close()


async def test_a_client_that_does_not_take_its_answer_blocks_nobody_and_is_cut_off(tmp_path: Path) -> None:
    async with serving(tmp_path, StandIn().dispatch, Limits(connections=1, take_seconds=0.3)) as path:
        with socket.socket(socket.AF_UNIX) as slow:
            slow.connect(str(path))
            slow.sendall(b'{"op": "report"}\n')
            # Its place, the only one, becomes free although it goes on holding its end.
            await until_answered(path)
            slow.settimeout(30)
            got = 0
            with suppress(ConnectionError):
                while chunk := await asyncio.to_thread(slow.recv, 1024 * 1024):
                    got += len(chunk)
            assert got < len(BIG)


async def test_connections_are_bounded_and_the_one_too_many_is_told_so(tmp_path: Path) -> None:
    async with serving(tmp_path, StandIn().dispatch, Limits(connections=3)) as path:
        held = [await asyncio.open_unix_connection(path) for _ in range(3)]
        for reader, writer in held:
            writer.write(ASK)
            assert json.loads(await reader.readline())["ok"]
        reader, writer = await asyncio.open_unix_connection(path)
        assert "too many" in json.loads(await asyncio.wait_for(reader.readline(), 30))["error"]
        writer.close()
        assert not await answers(path)
        held[0][1].close()
        await until_answered(path)
        for _, writer in held:
            writer.close()


async def leave_a_request(path: Path, stand_in: StandIn) -> None:
    """Ask for a start, and go as soon as it has begun."""
    _, writer = await asyncio.open_unix_connection(path)
    before = stand_in.begun
    writer.write(START)
    await eventually(lambda: stand_in.begun > before)
    writer.close()
    await writer.wait_closed()


async def test_a_client_that_goes_gives_its_place_back_and_its_request_goes_on(tmp_path: Path) -> None:
    stand_in = StandIn()
    async with serving(tmp_path, stand_in.dispatch, Limits(connections=2)) as path:
        await leave_a_request(path, stand_in)
        # Both places are free again: one is taken here, the other by each new client.
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(ASK)
        assert json.loads(await reader.readline())["ok"]
        await until_answered(path)
        writer.close()
        await leave_a_request(path, stand_in)
        # Two requests without a client are as many as there may be.
        await until_answered(path, expected=False)
        assert stand_in.finished == 0
        stand_in.release.set()
        await until_answered(path)
        assert stand_in.finished == 2


async def test_a_client_that_has_said_all_still_gets_its_answer(tmp_path: Path) -> None:
    stand_in = StandIn()
    async with serving(tmp_path, stand_in.dispatch, Limits()) as path:
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(START)
        writer.write_eof()
        await eventually(lambda: stand_in.begun)
        line = asyncio.create_task(reader.readline())
        # Longer than the server takes to look whether the client is there.
        done, _ = await asyncio.wait({line}, timeout=1.5)
        assert not done
        stand_in.release.set()
        assert json.loads(await asyncio.wait_for(line, 30)) == {"ok": True, "result": "start"}
        writer.close()


async def test_an_unknown_operation_or_field_is_refused_whole_with_the_agents_version(tmp_path: Path) -> None:
    async with serving(tmp_path, StandIn().dispatch, Limits()) as path:
        reader, writer = await asyncio.open_unix_connection(path)
        for line in (b'{"op": "levitate"}\n', b'{"op": "start", "id": "s", "gently": true}\n'):
            writer.write(line)
            answer = json.loads(await reader.readline())
            assert not answer["ok"]
            assert "version" in answer["error"]
        writer.close()
