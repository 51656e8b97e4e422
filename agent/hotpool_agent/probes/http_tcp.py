"""HTTP and TCP probes of one address (requirement A5): I/O, any error is a failure.

Each function probes once, without a time-out. Must not know how often to probe, or how many failures count.
"""

import asyncio
import errno
import os
import ssl
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
from yarl import URL

from hotpool_agent.catalogue.model import HttpCheck
from hotpool_agent.untrusted_text import quoted

_BODY_LIMIT: Final = 1024 * 1024
_SHOWN: Final = 200
_URL_SHOWN: Final = 120
_BODY_SECONDS: Final = 0.2
"""Time to wait for the body of a response that has failed already."""
_NO_LISTENER: Final = {errno.ECONNREFUSED}
_NO_IPV6: Final = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.ENETUNREACH}
_CLOSED: Final = {errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED}
_DEFAULT_PORTS: Final = {"HTTP": 80, "HTTPS": 443}


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """Result of one probe. `absent`: nothing was found at all. `detail`: reason of the failure, as text.

    The detail is in the report, and each change of the report is sent. Therefore it must not contain values that change
    with each probe, such as an age or a body; those are in `volatile`.
    """

    ok: bool
    absent: bool = False
    detail: str = ""
    conclusive: bool = False
    """True if this one result proves that the service has failed."""
    pid: int | None = None
    """Pid of the service's process, if the probe found it."""
    volatile: str = ""
    """Text that the service chose: a body, output, or an error that quotes them."""
    body: str = field(default="", repr=False, compare=False)
    """The whole body of a successful HTTP probe."""

    @property
    def text(self) -> str:
        """Return the whole reason, for a message that is not repeated with each probe."""
        return f"{self.detail}: {self.volatile}" if self.volatile else self.detail


class _Connector(aiohttp.TCPConnector):
    """Connector that refuses a connection to itself; see `is_own`."""

    async def connect(self, *arguments: Any, **options: Any) -> Any:
        connection = await super().connect(*arguments, **options)
        if is_own(connection.transport):
            connection.close()
            raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
        return connection


def new_session() -> aiohttp.ClientSession:
    """Return a session with a new connection for each probe: a kept one could still lead to an ended process."""
    return aiohttp.ClientSession(
        connector=_Connector(force_close=True, limit=0),
        # The environment may name a proxy. Each probe has a time-out of its own.
        trust_env=False,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),
    )


def is_own(transport: asyncio.BaseTransport | None) -> bool:
    """Return True if a connection leads to itself.

    The kernel chooses the client's port among those of outgoing connections. If that is the port that it connects to,
    and nothing listens there, the connection succeeds: TCP calls it a simultaneous open.
    """
    if transport is None:
        return False
    own, peer = (transport.get_extra_info(name) for name in ("sockname", "peername"))
    return own is not None and peer is not None and own[:2] == peer[:2]


def endpoint(address: str, port: int) -> str:
    """Return address and port as in a URL."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def http_name(check: HttpCheck, address: str, port: int) -> str:
    """Return the URL of a probe, cut for messages."""
    url = _url(check, address, port)
    return url if len(url) <= _URL_SHOWN else url[:_URL_SHOWN] + "…"


async def http(
    session: aiohttp.ClientSession, check: HttpCheck, address: str, port: int, context: ssl.SSLContext | None
) -> ProbeResult:
    """Send GET to the check's path. Only the expected status and body are a success. Raises only cancellation.

    `context`: of an HTTPS probe.
    """
    name, failure = http_name(check, address, port), ProbeResult(ok=False)
    headers = [(header.name, header.value) for header in check.http_headers]
    host = next((value for key, value in headers if key.lower() == "host"), None)
    if host is None and check.host and check.host != address:
        host = check.host if port == _DEFAULT_PORTS[check.scheme] else f"{check.host}:{port}"
        headers.append(("Host", host))
    for server_name in _server_names(check, host, address):
        secure: dict[str, Any] = {"ssl": context, "server_hostname": server_name} if context else {}
        request = session.get(_url(check, address, port), headers=headers, allow_redirects=False, **secure)
        try:
            return await _judge(request, check, name)
        except aiohttp.ClientConnectorCertificateError as error:
            failure = _failure(name, address, error)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return _failure(name, address, error)
    return failure


def _server_names(check: HttpCheck, host: str | None, address: str) -> tuple[str | None, ...]:
    """Return the names of which one must be in the server's certificate. `host`: the header."""
    if check.scheme == "HTTP":
        return (None,)
    if host is not None:
        return (URL(f"//{host}").host,)
    return (address,) if check.host else (address, "localhost")


async def _judge(
    request: AbstractAsyncContextManager[aiohttp.ClientResponse], check: HttpCheck, name: str
) -> ProbeResult:
    async with request as response:
        if response.status != check.expect_status:
            detail = f"HTTP {response.status} from {name}, not {check.expect_status}"
            return ProbeResult(ok=False, detail=detail, volatile=await _first_text(response))
        # A truncated response is a failure, even if the body is not compared.
        body = await _read_body(response)
    if body is None:
        return ProbeResult(ok=False, detail=f"{name}: the body is larger than {_BODY_LIMIT} bytes")
    if check.expect_body is None or body.strip() == check.expect_body.strip():
        return ProbeResult(ok=True, body=body)
    return ProbeResult(
        ok=False,
        detail=f"{name}: the body is not {quoted(check.expect_body.strip())}",
        volatile=f"body {quoted(body.strip())}",
    )


async def tcp(address: str, port: int) -> ProbeResult:
    """Connect to the port. Raises only cancellation."""
    try:
        _, writer = await asyncio.open_connection(address, port)
    except OSError as error:
        return _failure(endpoint(address, port), address, error)
    writer.close()
    if is_own(writer.transport):
        return ProbeResult(ok=False, absent=True, detail=f"{endpoint(address, port)}: Connection refused")
    return ProbeResult(ok=True)


def _url(check: HttpCheck, address: str, port: int) -> str:
    return f"{check.scheme.lower()}://{endpoint(address, port)}{check.path}"


def _failure(name: str, address: str, error: Exception) -> ProbeResult:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        error = error.certificate_error
    elif isinstance(error, aiohttp.ClientConnectorError):
        error = error.os_error
    if isinstance(error, ssl.SSLError):
        return ProbeResult(ok=False, detail=f"{name}: {tls_reason(error)}")
    number = error.errno if isinstance(error, OSError) else None
    if isinstance(error, aiohttp.ServerDisconnectedError) or number in _CLOSED:
        return ProbeResult(ok=False, detail=f"{name}: the connection was closed without a response")
    if isinstance(error, OSError):
        absent = number in _NO_LISTENER or (address == "::1" and number in _NO_IPV6)
        # asyncio's own text repeats the address.
        reason = os.strerror(number) if number else type(error).__name__
        return ProbeResult(ok=False, absent=absent, detail=f"{name}: {reason}")
    return ProbeResult(ok=False, detail=f"{name}: no valid HTTP response", volatile=one_line(_described(error)))


def tls_reason(error: ssl.SSLError) -> str:
    """Return the reason of a failed handshake or of an unusable certificate."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate is not valid: {error.verify_message}"
    return f"TLS failed: {(error.reason or 'unknown reason').replace('_', ' ').lower()}"


def one_line(text: str) -> str:
    """Return the printable part of the text as one short line."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * _SHOWN]).split())
    return line if len(line) <= _SHOWN else line[:_SHOWN] + "…"


def _described(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


async def _first_text(response: aiohttp.ClientResponse) -> str:
    """Return the beginning of the body of a failed response, if it is there."""
    with suppress(TimeoutError, aiohttp.ClientError, OSError):
        async with asyncio.timeout(_BODY_SECONDS):
            return one_line((await response.content.read(_SHOWN)).decode(errors="replace"))
    return ""


async def _read_body(response: aiohttp.ClientResponse) -> str | None:
    """Return the body, or None if it is larger than the limit."""
    chunks = bytearray()
    async for chunk in response.content.iter_any():
        chunks += chunk
        if len(chunks) > _BODY_LIMIT:
            return None
    return chunks.decode(errors="replace")
