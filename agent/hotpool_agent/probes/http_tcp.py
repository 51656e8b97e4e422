"""Asks a service whether it is ready (requirement A5): I/O, fails closed.

Answers one question once; how often to ask, and what an answer means, is not its business.
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
    """What a probe saw. `absent`: nothing is there at all. `detail`: why it is no success, for people.

    The detail goes into the report, and a changed report is sent: what changes with each probe, such as an age, must
    not be in it.
    """

    ok: bool
    absent: bool = False
    detail: str = ""
    conclusive: bool = False
    """It was seen that the service has failed: one such answer is enough."""
    pid: int | None = None
    """The process that the probe saw, where it is known."""


def new_session() -> aiohttp.ClientSession:
    """A session for probes: each on a connection of its own, so that no old one stands for a new process."""
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True, limit=0), trust_env=False)


async def http(session: aiohttp.ClientSession, check: HttpCheck, port: int, seconds: float) -> ProbeResult:
    """GET the check's path on loopback; only the expected status and body are a success. Never raises."""
    url = f"http://{LOOPBACK}:{check.port or port}{check.path}"
    try:
        async with asyncio.timeout(seconds), session.get(url, allow_redirects=False) as response:
            if response.status != check.expect_status:
                return ProbeResult(
                    ok=False, detail=f"GET {check.path}: status {response.status}, not {check.expect_status}"
                )
            # An answer that breaks off is none, whether or not anybody wants its body.
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
    """Whether the port accepts a connection on loopback. Never raises."""
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
    """What went wrong, on one short line: aiohttp quotes what it could not read, whole."""
    text = " ".join(f"{type(error).__name__}: {str(error)[: 2 * _SHOWN]}".split())
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


async def _read_body(response: aiohttp.ClientResponse) -> str:
    chunks = bytearray()
    async for chunk in response.content.iter_any():
        chunks += chunk
        if len(chunks) > _BODY_LIMIT:
            raise ValueError(f"body above {_BODY_LIMIT} bytes")
    return chunks.decode(errors="replace")
