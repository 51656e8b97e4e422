"""Probe loops of a supervised service, each of which ends with an event (requirements A5, A6, A11)."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final

import aiohttp

from hotpool_agent.catalogue.model import COMMON_PROBE_KINDS, Probe, ServiceSpec, TcpCheck
from hotpool_agent.probes.failure_threshold import FailureThreshold
from hotpool_agent.probes.http_tcp import ProbeResult
from hotpool_agent.probes.prober import Prober, Workplace
from hotpool_agent.services import events

_FIRST_PAUSE: Final = 0.05
"""Seconds between the first two probes of a start, doubled up to the probe's period."""


async def until_ready(
    prober: Prober | aiohttp.ClientSession, spec: ServiceSpec, on_failure: Callable[[], None]
) -> events.Ready | events.StartTimedOut:
    """Probe until a success or the start time-out. `on_failure` is called after each failed probe."""
    prober, ready, pause, last = _prober(prober), spec.ready, _FIRST_PAUSE, "no probe finished"
    try:
        async with asyncio.timeout(ready.start_seconds):
            while not (result := await _probe(prober, spec, ready)).ok:
                last = result.text
                on_failure()
                await asyncio.sleep(min(pause, ready.period_seconds))
                pause *= 2
    except TimeoutError:
        return events.StartTimedOut(f"not ready after {ready.start_seconds:g} s: {last}")
    return events.Ready()


async def probe_adopted(
    prober: Prober | aiohttp.ClientSession, spec: ServiceSpec
) -> events.Ready | events.AdoptionFailed:
    """Probe an adopted process once."""
    result = await _probe(_prober(prober), spec, spec.ready)
    return events.Ready() if result.ok else events.AdoptionFailed(f"not adopted: {result.text}")


async def until_hung(prober: Prober | aiohttp.ClientSession, spec: ServiceSpec) -> events.Hung:
    """Probe until `live.failures` probes in a row have failed."""
    prober, live = _prober(prober), spec.live
    probe: Probe = live
    if _declares_none(live):
        probe = spec.ready.model_copy(update={"timeout_seconds": live.timeout_seconds})
    threshold, last = FailureThreshold(live.failures), ""
    while not threshold.is_reached:
        await asyncio.sleep(live.period_seconds)
        result = await _probe(prober, spec, probe)
        threshold, last = threshold.add(ok=result.ok), result.text
    return events.Hung(f"{live.failures} probes in a row failed: {last}")


async def _probe(prober: Prober, spec: ServiceSpec, probe: Probe) -> ProbeResult:
    """Probe as the catalogue declares, else the service's port. Without a port, a living process is ready."""
    if _declares_none(probe):
        if spec.port is None:
            return ProbeResult(ok=True)
        probe = probe.model_copy(update={"tcp": TcpCheck()})
    run = spec.run
    return await prober.probe(probe, spec.port, Workplace(run.working_dir, run.env) if run else None)


def _declares_none(probe: Probe) -> bool:
    return all(getattr(probe, kind) is None for kind in COMMON_PROBE_KINDS)


def _prober(prober: Prober | aiohttp.ClientSession) -> Prober:
    return prober if isinstance(prober, Prober) else Prober(prober, Path())
