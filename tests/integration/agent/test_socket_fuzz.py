"""Arbitrary input on the local socket never ends the server, which serves the next valid request (requirement A2)."""

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
    """Return the request; refuse one service, and raise an unexpected error for another."""
    if request.id == "refused":
        raise protocol.RequestError("refused")
    if request.id == "broken":
        raise KeyError(request.id)
    return asdict(request)


@asynccontextmanager
async def serving() -> AsyncIterator[Path]:
    """Run a server on its own socket, and check at the end that it serves a valid request."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "agent.sock"
        server = await socket_server.serve(path, dispatch)
        try:
            yield path
            result = await asyncio.wait_for(asyncio.to_thread(protocol.send, path, STATUS), 20)
            assert result == asdict(STATUS)
        finally:
            server.close()


async def send(path: Path, data: bytes, *, wait: bool = True) -> list[dict[str, Any]]:
    """Send bytes and return the responses. Without `wait` the connection is closed at once."""
    reader, writer = await asyncio.open_unix_connection(path)
    with suppress(ConnectionError):
        writer.write(data)
        if not wait:
            writer.transport.abort()
            return []
        await writer.drain()
        writer.write_eof()
    responses = [json.loads(line) async for line in reader]
    writer.close()
    return responses


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(coroutine, 30))


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
def test_each_arbitrary_line_gets_a_response(lines: list[bytes], wait: bool) -> None:  # noqa: FBT001
    async def check() -> None:
        data = b"\n".join(lines)
        async with serving() as path:
            responses = await send(path, data, wait=wait)
        if wait:
            # The bytes after the last newline are an incomplete line.
            assert len(responses) == data.count(b"\n")

    run(check())


@repeatable
@given(st.lists(jsons | requests, max_size=8))
def test_arbitrary_json_is_executed_or_refused_line_by_line(values: list[Any]) -> None:
    async def check() -> None:
        async with serving() as path:
            responses = await send(path, b"".join(json.dumps(value).encode() + b"\n" for value in values))
        assert len(responses) == len(values)
        for value, response in zip(values, responses, strict=True):
            valid = isinstance(value, dict) and value.get("op") in OPERATIONS
            assert valid or not response["ok"]
            assert response["ok"] or response["error"]

    run(check())


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
async def test_large_or_deep_json_gets_a_response(line: bytes) -> None:
    async with serving() as path:
        (response,) = await send(path, line + b"\n")
        assert "ok" in response


async def test_after_a_refused_and_a_failed_request_the_connection_is_usable() -> None:
    lines = [{"op": "stop", "id": word} for word in ("refused", "broken", "fine")]
    async with serving() as path:
        responses = await send(path, "".join(json.dumps(line) + "\n" for line in lines).encode())
    assert [response["ok"] for response in responses] == [False, False, True]


async def test_many_connections_incomplete_lines_and_silent_readers_leak_nothing() -> None:
    async with serving() as path:
        descriptors, tasks = psutil.Process().num_fds(), len(asyncio.all_tasks())
        connections = [await asyncio.open_unix_connection(path) for _ in range(socket_server.Limits().connections - 1)]
        for number, (_, writer) in enumerate(connections):
            # An incomplete line; many requests whose responses are not read; nothing.
            writer.write((b'{"op": "sta', json.dumps(asdict(STATUS)).encode() + b"\n", b"")[number % 3] * 500)
        assert await asyncio.to_thread(protocol.send, path, STATUS)
        for _, writer in connections:
            writer.transport.abort()
        await eventually(lambda: psutil.Process().num_fds() <= descriptors)
        await eventually(lambda: len(asyncio.all_tasks()) <= tasks)
