"""Probe loops of a supervised service, each of which ends with an event (requirements A5, A6, A11)."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from hotpool_agent.catalogue.model import COMMON_PROBE_KINDS, Probe, ServiceSpec, TcpCheck
from hotpool_agent.probes.http_tcp import ProbeResult
from hotpool_agent.probes.prober import Prober, Workplace
from hotpool_agent.services import events

ADOPTION_SECONDS: Final = 30.0
"""Longest time in which an adopted process must answer a probe."""
_FIRST_PAUSE: Final = 0.05
"""Seconds between the first two probes of a start, doubled up to the probe's period."""


async def until_ready(
    prober: Prober, spec: ServiceSpec, on_failure: Callable[[], None]
) -> events.Ready | events.StartTimedOut:
    """Probe until a success or the start time-out. `on_failure` is called after each failed probe."""
    ready, pause, last = spec.ready, _FIRST_PAUSE, "no probe finished"
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
    prober: Prober, spec: ServiceSpec, on_failure: Callable[[], None]
) -> events.Ready | events.AdoptionFailed:
    """Probe an adopted process until a success, or until `live.failures` probes in a row have failed, at most 30 s.

    A busy service may need longer for an answer than one probe waits. `on_failure` is called after each failed probe.
    """
    probe, last, pause = _live_probe(spec), "no probe finished", 0.0
    with suppress(TimeoutError):
        async with asyncio.timeout(ADOPTION_SECONDS):
            for _ in range(spec.live.failures):
                await asyncio.sleep(pause)
                result = await _probe(prober, spec, probe)
                if result.ok:
                    return events.Ready()
                last, pause = result.text, spec.live.period_seconds
                on_failure()
    return events.AdoptionFailed(f"not adopted: {last}")


async def until_hung(prober: Prober, spec: ServiceSpec) -> events.Hung:
    """Probe until `live.failures` probes in a row have failed."""
    live, probe = spec.live, _live_probe(spec)
    failed, last = 0, ""
    while failed < live.failures:
        await asyncio.sleep(live.period_seconds)
        result = await _probe(prober, spec, probe)
        failed, last = 0 if result.ok else failed + 1, result.text
    return events.Hung(f"{live.failures} probes in a row failed: {last}")


def _live_probe(spec: ServiceSpec) -> Probe:
    """Return the `live` probe; by default the `ready` probe with the time-out of `live`."""
    live = spec.live
    return spec.ready.model_copy(update={"timeout_seconds": live.timeout_seconds}) if _declares_none(live) else live


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
