"""Probes of observed services, of five kinds (requirements A3, A5): I/O, any error is a failure.

Must not know how often to probe, or how many failures count.
"""

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp

from hotpool_agent.catalogue.model import FileCheck, Observe, ProcessCheck
from hotpool_agent.probes import http_tcp, processes
from hotpool_agent.probes.blocking_runner import SingleFlightRunner
from hotpool_agent.probes.http_tcp import ProbeResult

if TYPE_CHECKING:
    from hotpool_agent.probes.systemd import Systemd


class Prober:
    """Prober of all observed services of a node. `base`: the catalogue's folder. Does not close the session."""

    def __init__(self, session: aiohttp.ClientSession, base: Path) -> None:
        self._session = session
        self._base = base
        self._runner = SingleFlightRunner()
        self._systemd: dict[bool, Systemd] = {}
        """Connections by `user` of the checks."""
        self._pids: dict[ProcessCheck, int] = {}
        """Last known pid, tested first because reading about all processes is slow."""

    async def probe(self, observe: Observe, port: int | None) -> ProbeResult:
        """Probe a service once, within its time-out. `port`: used where the probe names none. Never raises."""
        try:
            return await self._probe(observe, port or 0)
        except TimeoutError:
            return ProbeResult(ok=False, detail=f"no answer in {observe.timeout_seconds:g} s")
        except Exception as error:  # noqa: BLE001 - any error is a failed probe, and must not end the observation
            return ProbeResult(ok=False, detail=f"{type(error).__name__}: {error}")

    async def close(self) -> None:
        """Close the connections. No probe may follow."""
        await asyncio.gather(*(systemd.close() for systemd in self._systemd.values()))

    async def _probe(self, observe: Observe, port: int) -> ProbeResult:
        if observe.http:
            return await http_tcp.http(self._session, observe.http, port, observe.timeout_seconds)
        if observe.tcp:
            return await http_tcp.tcp(observe.tcp.port or port, observe.timeout_seconds)
        async with asyncio.timeout(observe.timeout_seconds):
            return await self._probe_local(observe)

    async def _probe_local(self, observe: Observe) -> ProbeResult:
        if observe.process:
            return await self._process(observe.process)
        if observe.systemd:
            return await self._systemd_of(user=observe.systemd.user).probe(observe.systemd.unit)
        if observe.file:
            check = observe.file
            return await self._runner.run(check, lambda: _file(self._base / check.path, check))
        return ProbeResult(ok=False, detail="the catalogue declares no probe")

    def _systemd_of(self, *, user: bool) -> "Systemd":
        # Imported with the first service that needs it, because D-Bus takes 2 MB of memory.
        from hotpool_agent.probes.systemd import Systemd  # noqa: PLC0415

        return self._systemd.setdefault(user, Systemd(user=user))

    async def _process(self, check: ProcessCheck) -> ProbeResult:
        if check.name is None:
            path = self._base / (check.pid_file or "")
            return await self._runner.run(check, lambda: processes.by_pid_file(path, check.argument))
        name, last = check.name, self._pids.get(check)
        result = await self._runner.run(check, lambda: processes.by_name(name, check.argument, last))
        if result.pid is not None:
            self._pids[check] = result.pid
        return result


def _file(path: Path, check: FileCheck) -> ProbeResult:
    try:
        modified = path.stat().st_mtime
    except (FileNotFoundError, NotADirectoryError):
        return ProbeResult(ok=False, absent=True, detail=f"{check.path}: no such file")
    except OSError as error:
        return ProbeResult(ok=False, detail=f"{check.path}: {error.strerror}")
    # A time in the future is a failure, too: it would count as recent without an end.
    if check.max_age_seconds is not None and abs(time.time() - modified) > check.max_age_seconds:
        return ProbeResult(ok=False, detail=f"{check.path}: not modified within {check.max_age_seconds:g} s")
    return ProbeResult(ok=True)
