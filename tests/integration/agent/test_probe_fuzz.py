"""A service may answer a probe with anything (requirement A5): only the declared success is one, in bounded time."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from time import monotonic

import psutil
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hotpool_agent.catalogue.model import HttpCheck
from hotpool_agent.probes import http_tcp

Answering = Callable[[asyncio.StreamWriter], Awaitable[None]]

HEAD = b"HTTP/1.1 200 OK\r\n"
PLAIN = HttpCheck.model_validate({})
EXACT = HttpCheck.model_validate({"expectBody": "ok"})
SECONDS = 0.5
MEBIBYTES = 64
repeatable = settings(derandomize=True, deadline=None, max_examples=120)


@asynccontextmanager
async def server(answer: Answering) -> AsyncIterator[int]:
    """A raw TCP server that reads one request and answers it so; its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            await answer(writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield int(listening.sockets[0].getsockname()[1])
    finally:
        listening.close()


async def probed(answer: Answering, check: HttpCheck, seconds: float = SECONDS) -> http_tcp.ProbeResult:
    """What the probe makes of it, which is short and on one line."""
    async with server(answer) as port, http_tcp.new_session() as session:
        found = await http_tcp.http(session, check, port, seconds)
    assert len(found.detail) < 300
    assert "\n" not in found.detail
    return found


def said(data: bytes) -> Answering:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()

    return answer


def endless(head: bytes, chunk: bytes) -> Answering:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while True:
            writer.write(chunk)
            await writer.drain()

    return answer


def dripping(data: bytes) -> Answering:
    """One byte at a time, each well within the time-out, never at its end in time."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        for byte in data:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.02)

    return answer


def parts(good: bytes) -> st.SearchStrategy[bytes]:
    """A good answer with a piece replaced, or cut off."""
    at = st.integers(0, len(good))
    replaced = st.builds(lambda a, n, new: good[:a] + new + good[a + n :], at, st.integers(0, 9), st.binary(max_size=9))
    return replaced | at.map(lambda end: good[:end])


GOOD = HEAD + b"Content-Type: text/plain\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"


@repeatable
@given(st.binary(max_size=400), st.sampled_from([PLAIN, EXACT]))
def test_bytes_that_are_no_http_are_no_success(data: bytes, check: HttpCheck) -> None:
    assume(b"HTTP/" not in data)
    assert not asyncio.run(probed(said(data), check)).ok


@repeatable
@given(parts(GOOD) | parts(CHUNKED), st.sampled_from([PLAIN, EXACT]))
def test_a_damaged_answer_is_a_success_only_with_the_declared_status_and_body(data: bytes, check: HttpCheck) -> None:
    found = asyncio.run(probed(said(data), check))
    if found.ok:
        assert re.match(rb"[\r\n]*HTTP/1\.\d +200\b", data)
        assert check is PLAIN or b"ok" in data


@pytest.mark.parametrize("check", [PLAIN, EXACT])
@pytest.mark.parametrize("good", [GOOD, CHUNKED])
async def test_an_answer_that_breaks_off_anywhere_is_no_success(good: bytes, check: HttpCheck) -> None:
    assert (await probed(said(good), check)).ok
    cuts = [await probed(said(good[:end]), check) for end in range(len(good))]
    assert [end for end, found in enumerate(cuts) if found.ok] == []


@pytest.mark.parametrize("code", [100, 101, 199, 201, 204, 301, 302, 304, 400, 404, 429, 500, 503, 599])
async def test_no_other_status_is_the_declared_one(code: int) -> None:
    data = b"HTTP/1.1 %d X\r\nLocation: /\r\nContent-Length: 0\r\n\r\n" % code
    assert not (await probed(said(data), PLAIN)).ok
    if code >= 200:
        assert (await probed(said(data), HttpCheck.model_validate({"expectStatus": code}))).ok


@pytest.mark.parametrize(
    "answer",
    [
        endless(HEAD + b"\r\n", b"x" * 65536),
        endless(HEAD + b"Content-Length: 2000000000\r\n\r\n", b"x" * 65536),
        endless(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * 5000),
        endless(HEAD + b"Transfer-Encoding: chunked\r\n\r\n5;", b"x" * 65536),
        endless(HEAD, b"A: " + b"x" * 4000 + b"\r\n"),
        endless(HEAD + b"A: ", b"x" * 65536),
        endless(b"HTTP/1.1 200 ", b"x" * 65536),
        endless(b"", b"\0" * 65536),
        endless(b"", b"\r\n" * 30000),
        endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
        dripping(HEAD + b"Content-Length: 5000\r\n\r\n" + b"x" * 5000),
        dripping(HEAD + b"A: b\r\n" * 5000),
    ],
    ids=[
        *("body", "long body", "chunks", "chunk extension", "headers", "header", "status line", "zeros", "newlines"),
        *("continues", "dripping body", "dripping headers"),
    ],
)
async def test_an_answer_without_end_is_no_success_and_costs_bounded_time_and_memory(answer: Answering) -> None:
    before, began = psutil.Process().memory_info().rss, monotonic()
    assert not (await probed(answer, PLAIN)).ok
    assert monotonic() - began < SECONDS + 5
    assert psutil.Process().memory_info().rss - before < MEBIBYTES * 2**20
