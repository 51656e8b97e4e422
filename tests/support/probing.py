"""A prober, and its probes, for tests."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from hotpool_agent.catalogue.model import Observe
from hotpool_agent.probes import http_tcp
from hotpool_agent.probes.http_tcp import ProbeResult
from hotpool_agent.probes.prober import Prober

PATIENCE_SECONDS: Final = 20.0
"""Seconds of a time-out that must not expire."""


@asynccontextmanager
async def running_prober(base: Path) -> AsyncIterator[Prober]:
    """Run a prober whose catalogue is in the folder `base`."""
    async with http_tcp.new_session() as session:
        prober = Prober(session, base)
        yield prober
        await prober.close()


def observe_spec(fields: dict[str, Any], seconds: float = PATIENCE_SECONDS) -> Observe:
    """Return an `observe` of the catalogue with these fields."""
    return Observe.model_validate(fields | {"timeoutSeconds": seconds})


async def until_result(
    prober: Prober, check: Observe, condition: Callable[[ProbeResult], bool], port: int | None = None
) -> None:
    """Probe until the result meets the condition."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition(await prober.probe(check, port)):  # noqa: ASYNC110 - services send no notification
            await asyncio.sleep(0.01)
