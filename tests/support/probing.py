"""Asks an observer in a test."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from hotpool_agent.catalogue.model import Observe
from hotpool_agent.probes import http_tcp
from hotpool_agent.probes.http_tcp import ProbeResult
from hotpool_agent.probes.prober import Prober

PATIENT: Final = 20.0
"""A time-out that nobody is to meet."""


@asynccontextmanager
async def observing(base: Path) -> AsyncIterator[Prober]:
    """An observer whose catalogue is in the folder."""
    async with http_tcp.new_session() as session:
        observer = Prober(session, base)
        yield observer
        await observer.close()


def how(way: dict[str, Any], seconds: float = PATIENT) -> Observe:
    """An `observe` of the catalogue."""
    return Observe.model_validate(way | {"timeoutSeconds": seconds})


async def until_seen(
    observer: Prober, check: Observe, good: Callable[[ProbeResult], bool], port: int | None = None
) -> None:
    """Ask until the answer is good."""
    async with asyncio.timeout(PATIENT):
        while not good(await observer.probe(check, port)):  # noqa: ASYNC110 - nothing tells when others have done it
            await asyncio.sleep(0.01)
