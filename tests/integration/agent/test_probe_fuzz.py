"""A service may answer a probe with any bytes (requirement A5): only the declared response is a success.

The time of a probe is bounded.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic

import psutil
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tests.support.probing import running_prober

from hotpool_agent.catalogue.model import HttpCheck, Probe
from hotpool_agent.probes.http_tcp import ProbeResult

Responder = Callable[[asyncio.StreamWriter], Awaitable[None]]

HEAD = b"HTTP/1.1 200 OK\r\n"
PLAIN = HttpCheck.model_validate({})
EXACT = HttpCheck.model_validate({"expectBody": "ok"})
SECONDS = 0.5
MEBIBYTES = 64
repeatable = settings(derandomize=True, deadline=None, max_examples=120)


@asynccontextmanager
async def server(respond: Responder) -> AsyncIterator[int]:
    """Run a raw TCP server that reads one request and calls `respond`; provide its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            await respond(writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield int(listening.sockets[0].getsockname()[1])
    finally:
        listening.close()


async def probed(respond: Responder, check: HttpCheck, seconds: float = SECONDS) -> ProbeResult:
    """Return the result of a probe, whose detail must be one short line."""
    async with server(respond) as port, running_prober(Path()) as prober:
        result = await prober.probe(Probe(http=check, timeoutSeconds=seconds), port)
    for text in (result.detail, result.volatile):
        assert len(text) < 600
        assert text.isprintable()
    return result


def sends(data: bytes) -> Responder:
    async def respond(writer: asyncio.StreamWriter) -> None:
        writer.write(data)
        await writer.drain()

    return respond


def endless(head: bytes, chunk: bytes) -> Responder:
    async def respond(writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while True:
            writer.write(chunk)
            await writer.drain()

    return respond


def dripping(data: bytes) -> Responder:
    """Send one byte at a time, each well within the time-out, but not all of them."""

    async def respond(writer: asyncio.StreamWriter) -> None:
        for byte in data:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.02)

    return respond


def parts(good: bytes) -> st.SearchStrategy[bytes]:
    """Generate a valid response with a piece replaced, or truncated."""
    at = st.integers(0, len(good))
    replaced = st.builds(lambda a, n, new: good[:a] + new + good[a + n :], at, st.integers(0, 9), st.binary(max_size=9))
    return replaced | at.map(lambda end: good[:end])


GOOD = HEAD + b"Content-Type: text/plain\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"


@repeatable
@given(st.binary(max_size=400), st.sampled_from([PLAIN, EXACT]))
def test_bytes_that_are_not_http_are_a_failure(data: bytes, check: HttpCheck) -> None:
    assume(b"HTTP/" not in data)
    assert not asyncio.run(probed(sends(data), check)).ok


@repeatable
@given(parts(GOOD) | parts(CHUNKED), st.sampled_from([PLAIN, EXACT]))
def test_a_damaged_response_is_a_success_only_with_the_declared_status_and_body(data: bytes, check: HttpCheck) -> None:
    result = asyncio.run(probed(sends(data), check))
    if result.ok:
        assert re.match(rb"[\r\n]*HTTP/1\.\d +200\b", data)
        assert check is PLAIN or b"ok" in data


@pytest.mark.parametrize("check", [PLAIN, EXACT])
@pytest.mark.parametrize("good", [GOOD, CHUNKED])
async def test_a_truncated_response_is_a_failure(good: bytes, check: HttpCheck) -> None:
    assert (await probed(sends(good), check)).ok
    cuts = [await probed(sends(good[:end]), check) for end in range(len(good))]
    assert [end for end, result in enumerate(cuts) if result.ok] == []


@pytest.mark.parametrize("code", [100, 101, 199, 201, 204, 301, 302, 304, 400, 404, 429, 500, 503, 599])
async def test_any_other_status_is_a_failure(code: int) -> None:
    data = b"HTTP/1.1 %d X\r\nLocation: /\r\nContent-Length: 0\r\n\r\n" % code
    assert not (await probed(sends(data), PLAIN)).ok
    if code >= 200:
        assert (await probed(sends(data), HttpCheck.model_validate({"expectStatus": code}))).ok


@pytest.mark.parametrize(
    "respond",
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
async def test_a_response_without_end_is_a_failure_with_bounded_time_and_memory(respond: Responder) -> None:
    before, began = psutil.Process().memory_info().rss, monotonic()
    assert not (await probed(respond, PLAIN)).ok
    assert monotonic() - began < SECONDS + 5
    assert psutil.Process().memory_info().rss - before < MEBIBYTES * 2**20
