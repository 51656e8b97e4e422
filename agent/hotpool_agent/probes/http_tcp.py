"""HTTP and TCP probes (requirement A5): I/O, any error is a failure.

Each function probes once. Must not know how often to probe, or how many failures count.
"""

import asyncio
from dataclasses import dataclass
from typing import Final

import aiohttp

from hotpool_agent.catalogue.model import HttpCheck

LOOPBACK: Final = "127.0.0.1"
_BODY_LIMIT: Final = 1024 * 1024
_SHOWN: Final = 200


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """Result of one probe. `absent`: nothing was found at all. `detail`: reason of the failure, as text.

    The detail is in the report, and each change of the report is sent. Therefore it must not contain values that change
    with each probe, such as an age.
    """

    ok: bool
    absent: bool = False
    detail: str = ""
    conclusive: bool = False
    """True if this one result proves that the service has failed."""
    pid: int | None = None
    """Pid of the service's process, if the probe found it."""


def new_session() -> aiohttp.ClientSession:
    """Return a session with a new connection for each probe: a kept one could still lead to an ended process."""
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True, limit=0), trust_env=False)


async def http(session: aiohttp.ClientSession, check: HttpCheck, port: int, seconds: float) -> ProbeResult:
    """Send GET to the check's path on loopback. Only the expected status and body are a success. Never raises."""
    url = f"http://{LOOPBACK}:{check.port or port}{check.path}"
    try:
        async with asyncio.timeout(seconds), session.get(url, allow_redirects=False) as response:
            if response.status != check.expect_status:
                return ProbeResult(
                    ok=False, detail=f"GET {check.path}: status {response.status}, not {check.expect_status}"
                )
            # A truncated response is a failure, even if the body is not compared.
            body = await _read_body(response)
    except TimeoutError:
        return ProbeResult(ok=False, detail=f"GET {check.path}: no answer in {seconds:g} s")
    except aiohttp.ClientConnectorError as error:
        refused = isinstance(error.os_error, ConnectionRefusedError)
        return ProbeResult(ok=False, absent=refused, detail=f"GET {check.path}: {error.os_error.strerror}")
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return ProbeResult(ok=False, detail=f"GET {check.path}: {_error_text(error)}")
    if check.expect_body is None or body.strip() == check.expect_body.strip():
        return ProbeResult(ok=True)
    return ProbeResult(ok=False, detail=f"GET {check.path}: body {body.strip()[:60]!r}, not {check.expect_body!r}")


async def tcp(port: int, seconds: float) -> ProbeResult:
    """Connect to the port on loopback. Never raises."""
    try:
        async with asyncio.timeout(seconds):
            _, writer = await asyncio.open_connection(LOOPBACK, port)
    except TimeoutError:
        return ProbeResult(ok=False, detail=f"port {port}: no answer in {seconds:g} s")
    except OSError as error:
        refused = isinstance(error, ConnectionRefusedError)
        return ProbeResult(ok=False, absent=refused, detail=f"port {port}: {error.strerror}")
    writer.close()
    return ProbeResult(ok=True)


def _error_text(error: Exception) -> str:
    """Return the error as one short line, because aiohttp quotes the whole unreadable input."""
    text = " ".join(f"{type(error).__name__}: {str(error)[: 2 * _SHOWN]}".split())
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


async def _read_body(response: aiohttp.ClientResponse) -> str:
    chunks = bytearray()
    async for chunk in response.content.iter_any():
        chunks += chunk
        if len(chunks) > _BODY_LIMIT:
            raise ValueError(f"body above {_BODY_LIMIT} bytes")
    return chunks.decode(errors="replace")
