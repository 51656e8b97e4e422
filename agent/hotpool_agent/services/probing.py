"""When to probe a supervised service, and what the answers amount to (requirements A5, A6, A11).

Asking itself is `http_tcp`.
"""

import asyncio
from collections.abc import Callable
from typing import Final

import aiohttp

from hotpool_agent.catalogue.model import HttpCheck, ServiceSpec
from hotpool_agent.probes import http_tcp
from hotpool_agent.probes.failure_threshold import FailureThreshold
from hotpool_agent.services import events

_FIRST_PAUSE: Final = 0.05
"""Seconds between the first two probes of a start; doubled up to the probe's period."""


async def until_ready(
    session: aiohttp.ClientSession, spec: ServiceSpec, failed: Callable[[], None]
) -> events.Ready | events.StartTimedOut:
    """Probe until a success, or until the time for a start is over; `failed` is called after each other answer."""
    ready, pause, last = spec.ready, _FIRST_PAUSE, "no probe finished"
    try:
        async with asyncio.timeout(ready.start_seconds):
            while not (answer := await _probe(session, spec, ready.http, ready.timeout_seconds)).ok:
                last = answer.detail
                failed()
                await asyncio.sleep(min(pause, ready.period_seconds))
                pause *= 2
    except TimeoutError:
        return events.StartTimedOut(f"not ready after {ready.start_seconds:g} s: {last}")
    return events.Ready()


async def probe_adopted(session: aiohttp.ClientSession, spec: ServiceSpec) -> events.Ready | events.AdoptionFailed:
    """Probe once."""
    answer = await _probe(session, spec, spec.ready.http, spec.ready.timeout_seconds)
    return events.Ready() if answer.ok else events.AdoptionFailed(f"not adopted: {answer.detail}")


async def until_hung(session: aiohttp.ClientSession, spec: ServiceSpec) -> events.Hung:
    """Probe until a fixed number of probes in a row have failed."""
    live = spec.live
    streak, last = FailureThreshold(live.failures), ""
    while not streak.is_reached:
        await asyncio.sleep(live.period_seconds)
        answer = await _probe(session, spec, live.http or spec.ready.http, live.timeout_seconds)
        streak, last = streak.add(ok=answer.ok), answer.detail
    return events.Hung(f"{live.failures} probes in a row failed: {last}")


async def _probe(
    session: aiohttp.ClientSession, spec: ServiceSpec, http: HttpCheck | None, seconds: float
) -> http_tcp.ProbeResult:
    """By HTTP where that is declared, else whether the port answers; without either it runs while its process does."""
    if http:
        return await http_tcp.http(session, http, spec.port or 0, seconds)
    if spec.port:
        return await http_tcp.tcp(spec.port, seconds)
    return http_tcp.ProbeResult(ok=True)
