"""Probe loops of a supervised service, each of which ends with an event (requirements A5, A6, A11)."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import aiohttp

from hotpool_agent.catalogue.model import HttpCheck, ServiceSpec
from hotpool_agent.probes import http_tcp
from hotpool_agent.probes.failure_threshold import FailureThreshold
from hotpool_agent.services import events

ADOPTION_SECONDS: Final = 30.0
"""Longest time in which an adopted process must answer a probe."""
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


async def probe_adopted(
    session: aiohttp.ClientSession, spec: ServiceSpec, on_failure: Callable[[], None]
) -> events.Ready | events.AdoptionFailed:
    """Probe an adopted process until a success, or until `live.failures` probes in a row have failed, at most 30 s.

    A busy service may need longer for an answer than one probe waits. `on_failure` is called after each failed probe.
    """
    live = spec.live
    threshold, last = FailureThreshold(live.failures), "no probe finished"
    with suppress(TimeoutError):
        async with asyncio.timeout(ADOPTION_SECONDS):
            while True:
                result = await _probe(session, spec, live.http or spec.ready.http, live.timeout_seconds)
                if result.ok:
                    return events.Ready()
                threshold, last = threshold.add(ok=False), result.detail
                on_failure()
                if threshold.is_reached:
                    break
                await asyncio.sleep(live.period_seconds)
    return events.AdoptionFailed(f"not adopted: {last}")


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
