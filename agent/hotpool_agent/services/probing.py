"""Probe loops of a supervised service, each of which ends with an event (requirements A5, A6, A11)."""

import asyncio
from collections.abc import Callable
from typing import Final

import aiohttp

from hotpool_agent.catalogue.model import HttpCheck, ServiceSpec
from hotpool_agent.probes import http_tcp
from hotpool_agent.probes.failure_threshold import FailureThreshold
from hotpool_agent.services import events

_FIRST_PAUSE: Final = 0.05
"""Seconds between the first two probes of a start, doubled up to the probe's period."""


async def until_ready(
    session: aiohttp.ClientSession, spec: ServiceSpec, on_failure: Callable[[], None]
) -> events.Ready | events.StartTimedOut:
    """Probe until a success or the start time-out. `on_failure` is called after each failed probe."""
    ready, pause, last = spec.ready, _FIRST_PAUSE, "no probe finished"
    try:
        async with asyncio.timeout(ready.start_seconds):
            while not (result := await _probe(session, spec, ready.http, ready.timeout_seconds)).ok:
                last = result.detail
                on_failure()
                await asyncio.sleep(min(pause, ready.period_seconds))
                pause *= 2
    except TimeoutError:
        return events.StartTimedOut(f"not ready after {ready.start_seconds:g} s: {last}")
    return events.Ready()


async def probe_adopted(session: aiohttp.ClientSession, spec: ServiceSpec) -> events.Ready | events.AdoptionFailed:
    """Probe an adopted process once."""
    result = await _probe(session, spec, spec.ready.http, spec.ready.timeout_seconds)
    return events.Ready() if result.ok else events.AdoptionFailed(f"not adopted: {result.detail}")


async def until_hung(session: aiohttp.ClientSession, spec: ServiceSpec) -> events.Hung:
    """Probe until `live.failures` probes in a row have failed."""
    live = spec.live
    threshold, last = FailureThreshold(live.failures), ""
    while not threshold.is_reached:
        await asyncio.sleep(live.period_seconds)
        result = await _probe(session, spec, live.http or spec.ready.http, live.timeout_seconds)
        threshold, last = threshold.add(ok=result.ok), result.detail
    return events.Hung(f"{live.failures} probes in a row failed: {last}")


async def _probe(
    session: aiohttp.ClientSession, spec: ServiceSpec, http: HttpCheck | None, seconds: float
) -> http_tcp.ProbeResult:
    """Probe by HTTP if the catalogue declares it, else by TCP. Without a port, a living process is ready."""
    if http:
        return await http_tcp.http(session, http, spec.port or 0, seconds)
    if spec.port:
        return await http_tcp.tcp(spec.port, seconds)
    return http_tcp.ProbeResult(ok=True)
