"""HTTP and TCP probes (requirements A5, B13): which addresses, HTTPS, headers, limits. Real sockets on loopback."""

import asyncio
import functools
import os
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.support.certificates import Authority
from tests.support.probing import observe_spec, running_prober

from hotpool_agent.probes import http_tcp
from hotpool_agent.probes.http_tcp import ProbeResult
from hotpool_agent.probes.prober import Prober
from localfleet.ports import free_port

OK = ProbeResult(ok=True)
RESPONSE = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
KINDS = pytest.mark.parametrize("kind", ["http", "tcp"])


@pytest.fixture
async def prober(tmp_path: Path) -> AsyncIterator[Prober]:
    async with running_prober(tmp_path) as prober:
        yield prober


@asynccontextmanager
async def serving(
    address: str, response: bytes | None = RESPONSE, port: int = 0, tls: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[int, list[bytes]]]:
    """Answer each request with these bytes, None: never. Provide the port and the requests."""
    requests: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            requests.append(await reader.readuntil(b"\r\n\r\n"))
            if response is None:
                await reader.read()
            else:
                writer.write(response)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, address, port, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1], requests
    finally:
        server.close()


@KINDS
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_a_service_on_one_loopback_address_is_found(prober: Prober, kind: str, address: str) -> None:
    async with serving(address) as (port, _):
        assert await prober.probe(observe_spec({kind: {}}), port) == OK


@KINDS
async def test_nothing_there_names_both_addresses(prober: Prober, kind: str) -> None:
    port = free_port()
    before, after = ("http://", "/") if kind == "http" else ("", "")
    detail = "; ".join(f"{before}{host}:{port}{after}: Connection refused" for host in ("127.0.0.1", "[::1]"))
    assert await prober.probe(observe_spec({kind: {}}), port) == ProbeResult(ok=False, absent=True, detail=detail)


async def test_a_failure_on_one_address_is_neither_absence_nor_a_reason_to_skip_the_other(prober: Prober) -> None:
    failing = b"HTTP/1.1 503 Busy\r\nContent-Length: 4\r\n\r\nbusy"
    async with serving("127.0.0.1", failing) as (port, _):
        result = await prober.probe(observe_spec({"http": {}}), port)
        url = f"http://127.0.0.1:{port}/"
        detail = f"HTTP 503 from {url}, not 200; http://[::1]:{port}/: Connection refused"
        assert result == ProbeResult(ok=False, detail=detail, volatile="busy")
        async with serving("::1", port=port):
            assert await prober.probe(observe_spec({"http": {}}), port) == OK


async def test_a_port_that_hangs_on_one_address_does_not_hide_the_other(prober: Prober) -> None:
    async with serving("127.0.0.1", None) as (port, _), serving("::1", port=port):
        assert await prober.probe(observe_spec({"http": {}}, 0.4), port) == OK
    async with serving("127.0.0.1", None) as (port, _):
        result = await prober.probe(observe_spec({"http": {}}, 0.1), port)
        detail = f"http://127.0.0.1:{port}/: no answer in 0.1 s; http://[::1]:{port}/: Connection refused"
        assert result == ProbeResult(ok=False, detail=detail)


@KINDS
async def test_an_explicit_host_is_an_address_or_a_name(prober: Prober, kind: str) -> None:
    async with serving("127.0.0.2") as (port, _):
        assert await prober.probe(observe_spec({kind: {"host": "127.0.0.2"}}), port) == OK
        assert (await prober.probe(observe_spec({kind: {}}), port)).absent
    async with serving("127.0.0.1") as (port, requests):
        assert await prober.probe(observe_spec({kind: {"host": "localhost"}}), port) == OK
        if kind == "http":
            assert f"\r\nHost: localhost:{port}\r\n".encode() in requests[0]
        unknown = await prober.probe(observe_spec({kind: {"host": "a.invalid"}}), port)
        assert (unknown.ok, unknown.absent) == (False, False)
        assert unknown.detail.startswith("a.invalid: ")


async def test_headers_are_sent_and_replace_the_host(prober: Prober) -> None:
    headers = [{"name": "Host", "value": "asr.example"}, {"name": "X-A", "value": "1"}, {"name": "X-A", "value": "2"}]
    async with serving("127.0.0.1") as (port, requests):
        assert await prober.probe(observe_spec({"http": {"httpHeaders": headers}}), port) == OK
    for line in (b"Host: asr.example", b"X-A: 1", b"X-A: 2"):
        assert requests[0].count(b"\r\n" + line + b"\r\n") == 1
    assert requests[0].count(b"Host:") == 1


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
async def test_https_needs_a_certificate_of_the_ca_for_the_address(
    prober: Prober, authority: Authority, tmp_path: Path, address: str
) -> None:
    context = authority.context(authority.issue("server", address))
    async with serving(address, tls=context) as (port, _):
        trusted = {"scheme": "HTTPS", "caFile": authority.path.relative_to(tmp_path).as_posix()}
        assert await prober.probe(observe_spec({"http": trusted}), port) == OK
        assert await prober.probe(observe_spec({"http": {"scheme": "HTTPS", "insecureSkipVerify": True}}), port) == OK
        for more, reason in (
            ({"scheme": "HTTPS"}, "the certificate is not valid: self-signed certificate in certificate chain"),
            (trusted | {"httpHeaders": [{"name": "Host", "value": "b:1"}]}, "certificate is not valid for 'b'"),
        ):
            result = await prober.probe(observe_spec({"http": more}), port)
            assert reason in result.detail
            assert not result.absent
        assert await prober.probe(observe_spec({"http": {}}), port) != OK


async def test_a_ca_file_is_read_again_after_a_change(prober: Prober, tmp_path: Path) -> None:
    old, new, ca_file = Authority(tmp_path / "a"), Authority(tmp_path / "b"), tmp_path / "ca.pem"
    check = observe_spec({"http": {"scheme": "HTTPS", "caFile": "ca.pem"}})
    async with serving("127.0.0.1", tls=new.context(new.issue("server"))) as (port, _):
        missing = ProbeResult(ok=False, detail="ca.pem: No such file or directory")
        assert await prober.probe(check, port) == missing
        ca_file.write_text("no certificate")
        assert await prober.probe(check, port) == ProbeResult(ok=False, detail="ca.pem: no PEM certificate")
        ca_file.write_bytes(old.path.read_bytes())
        assert not (await prober.probe(check, port)).ok
        ca_file.write_bytes(new.path.read_bytes())
        assert await prober.probe(check, port) == OK


@pytest.mark.parametrize("response", [b"HTTP/1.0 200 OK\r\n\r\nok", b"HTTP/1.1 200 OK\r\n\r\nok\n"])
async def test_a_body_that_ends_with_the_connection_is_complete(prober: Prober, response: bytes) -> None:
    async with serving("127.0.0.1", response) as (port, _):
        assert await prober.probe(observe_spec({"http": {"expectBody": "ok"}}), port) == OK


async def test_a_body_above_the_limit_is_a_failure_with_its_reason(prober: Prober) -> None:
    body = b"ok" * 2**20
    response = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    async with serving("127.0.0.1", response) as (port, _):
        for check in ({}, {"expectBody": "ok"}):
            result = await prober.probe(observe_spec({"http": check}), port)
            assert f"http://127.0.0.1:{port}/: the body is larger than 1048576 bytes" in result.detail


@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 503 Busy\r\nContent-Length: 20\r\n\r\n%020d",
        b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n%020d",
        b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n%020d",
        b"HTTP/1.1 %020d\r\n\r\n",
        b"\0\x80 %020d\r\n\r\n",
    ],
    ids=["status", "body", "cut", "code", "bytes"],
)
async def test_what_a_service_says_is_not_in_the_stable_reason(prober: Prober, response: bytes) -> None:
    port, results = free_port(), []
    for number in (4711, 4712):
        async with serving("127.0.0.1", response % number, port):
            results.append(await prober.probe(observe_spec({"http": {"expectBody": "ok"}}), port))
    assert results[0].detail == results[1].detail
    assert not results[0].ok
    assert "4711" not in results[0].detail


async def test_a_redirect_is_not_followed_and_a_proxy_is_not_used(
    prober: Prober, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    async with serving("127.0.0.1") as (target, requests):
        moved = b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:%d/\r\nContent-Length: 0\r\n\r\n" % target
        async with serving("127.0.0.1", moved) as (port, _):
            result = await prober.probe(observe_spec({"http": {}}), port)
            assert result.detail.startswith("HTTP 302 from ")
            assert await prober.probe(observe_spec({"http": {"expectStatus": 302}}), port) == OK
    assert requests == []


@KINDS
async def test_a_connection_to_itself_counts_as_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    port = free_port()
    own: dict[str, Any] = {"local_addr": ("127.0.0.1", port)}  # The port that the kernel chooses once in 16,000 tries.
    monkeypatch.setattr(asyncio, "open_connection", functools.partial(asyncio.open_connection, **own))
    monkeypatch.setattr(http_tcp, "_Connector", functools.partial(http_tcp._Connector, **own))  # noqa: SLF001
    async with running_prober(tmp_path) as prober:
        result = await prober.probe(observe_spec({kind: {"host": "127.0.0.1"}}), port)
    assert (result.ok, result.absent) == (False, True)
    assert result.detail.endswith("Connection refused")


async def test_names_that_are_not_resolved_delay_no_other_probe(
    prober: Prober, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = tmp_path / "dns"
    os.mkfifo(silent)  # Like a name server that does not answer: opening it does not return.

    def getaddrinfo(host: str, *arguments: Any, **options: Any) -> Any:
        if host.startswith("silent"):
            silent.read_bytes()
        return original(host, *arguments, **options)

    original: Callable[..., Any] = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    async with serving("127.0.0.1") as (port, _):

        def probe(host: str, seconds: float) -> Awaitable[ProbeResult]:
            return prober.probe(observe_spec({"http": {"host": host}}, seconds), port)

        hanging = [asyncio.ensure_future(probe(f"silent-{number}", 0.5)) for number in range(40)]
        assert await probe("localhost", 20) == OK
        await asyncio.get_running_loop().getaddrinfo("localhost", port)  # The loop's own threads are free.
        details = {result.detail for result in await asyncio.gather(*hanging)}
        assert details == {f"silent-{number}: name not resolved in 0.5 s" for number in range(40)}
        with silent.open("w"):  # End the threads.
            pass
