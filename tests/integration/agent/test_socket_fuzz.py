"""Whatever comes over the local socket (requirement A2), the server lives and answers the next good request."""

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.agent_run import eventually

from hotpool_agent.control import protocol, socket_server

OPERATIONS = ["status", "start", "stop"]
STATUS = protocol.Request(op="status")
repeatable = settings(derandomize=True, deadline=None, max_examples=60)


async def dispatch(request: protocol.Request) -> Any:
    """Answers with the request; refuses one service, and breaks on another."""
    if request.id == "refused":
        raise protocol.RequestError("refused")
    if request.id == "broken":
        raise KeyError(request.id)
    return asdict(request)


@asynccontextmanager
async def serving() -> AsyncIterator[Path]:
    """A server on a socket of its own, which answers a good request at the end."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "agent.sock"
        server = await socket_server.serve(path, dispatch)
        try:
            yield path
            answer = await asyncio.wait_for(asyncio.to_thread(protocol.ask, path, STATUS), 20)
            assert answer == asdict(STATUS)
        finally:
            server.close()


async def said(path: Path, data: bytes, *, wait: bool = True) -> list[dict[str, Any]]:
    """The answers to these bytes; without `wait` the connection is dropped at once."""
    reader, writer = await asyncio.open_unix_connection(path)
    with suppress(ConnectionError):
        writer.write(data)
        if not wait:
            writer.transport.abort()
            return []
        await writer.drain()
        writer.write_eof()
    answers = [json.loads(line) async for line in reader]
    writer.close()
    return answers


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 30))


jsons = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
requests = st.fixed_dictionaries(
    {}, optional={"op": st.sampled_from(OPERATIONS) | jsons, "id": jsons, "wait": jsons, "x": jsons}
)


@repeatable
@given(st.lists(st.binary(max_size=200), min_size=1, max_size=8), st.booleans())
def test_arbitrary_lines_each_get_an_answer_and_end_nothing(lines: list[bytes], wait: bool) -> None:  # noqa: FBT001
    async def work() -> None:
        data = b"\n".join(lines)
        async with serving() as path:
            answers = await said(path, data, wait=wait)
        if wait:
            # What follows the last line feed is half a line.
            assert len(answers) == data.count(b"\n")

    run(work())


@repeatable
@given(st.lists(jsons | requests, max_size=8))
def test_arbitrary_json_is_done_or_refused_line_by_line(values: list[Any]) -> None:
    async def work() -> None:
        async with serving() as path:
            answers = await said(path, b"".join(json.dumps(value).encode() + b"\n" for value in values))
        assert len(answers) == len(values)
        for value, answer in zip(values, answers, strict=True):
            good = isinstance(value, dict) and value.get("op") in OPERATIONS
            assert good or not answer["ok"]
            assert answer["ok"] or answer["error"]

    run(work())


@pytest.mark.parametrize(
    "line",
    [
        b"[" * 60000,
        b'{"a":' * 12000,
        b'{"op": "status", "id": "\\ud800"}',
        b'{"op": "status", "id": "' + b"x" * 60000 + b'"}',
        b'{"op": "status", "op": "start"}',
        b"9" * 60000,
        b"\0" * 100,
        b"",
    ],
)
async def test_bombs_are_answered(line: bytes) -> None:
    async with serving() as path:
        (answer,) = await said(path, line + b"\n")
        assert "ok" in answer


async def test_a_refusal_and_a_fault_of_one_request_leave_the_connection_usable() -> None:
    lines = [{"op": "stop", "id": word} for word in ("refused", "broken", "fine")]
    async with serving() as path:
        answers = await said(path, "".join(json.dumps(line) + "\n" for line in lines).encode())
    assert [answer["ok"] for answer in answers] == [False, False, True]


async def test_many_connections_half_lines_and_silent_readers_leave_nothing_behind() -> None:
    async with serving() as path:
        descriptors, tasks = psutil.Process().num_fds(), len(asyncio.all_tasks())
        open_ones = [await asyncio.open_unix_connection(path) for _ in range(socket_server.Limits().connections - 1)]
        for number, (_, writer) in enumerate(open_ones):
            # Half a line; much asked and no answer read; nothing.
            writer.write((b'{"op": "sta', json.dumps(asdict(STATUS)).encode() + b"\n", b"")[number % 3] * 500)
        assert await asyncio.to_thread(protocol.ask, path, STATUS)
        for _, writer in open_ones:
            writer.transport.abort()
        await eventually(lambda: psutil.Process().num_fds() <= descriptors)
        await eventually(lambda: len(asyncio.all_tasks()) <= tasks)
