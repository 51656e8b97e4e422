"""Sees whether a service that something else runs is there, in one of five ways (A3, A5): I/O, fails closed.

Answers one question once. How often to ask, and how many failures count, is not its business.
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
    """Asks about all observed services of a node. `base`: the catalogue's folder. The session stays the caller's."""

    def __init__(self, session: aiohttp.ClientSession, base: Path) -> None:
        self._session = session
        self._base = base
        self._runner = SingleFlightRunner()
        self._systemd: dict[bool, Systemd] = {}
        """By `user` of the checks."""
        self._pids: dict[ProcessCheck, int] = {}
        """Where a process was last seen: looking there first spares reading about all others."""

    async def probe(self, how: Observe, port: int | None) -> ProbeResult:
        """The answer of the service's one way, within its time-out; `port` is the service's. Never raises."""
        try:
            return await self._probe(how, port or 0)
        except TimeoutError:
            return ProbeResult(ok=False, detail=f"no answer in {how.timeout_seconds:g} s")
        except Exception as error:  # noqa: BLE001 - whatever goes wrong is no success, and must not end the observation
            return ProbeResult(ok=False, detail=f"{type(error).__name__}: {error}")

    async def close(self) -> None:
        """End the connections. Nobody may ask any more."""
        await asyncio.gather(*(systemd.close() for systemd in self._systemd.values()))

    async def _probe(self, how: Observe, port: int) -> ProbeResult:
        if how.http:
            return await http_tcp.http(self._session, how.http, port, how.timeout_seconds)
        if how.tcp:
            return await http_tcp.tcp(how.tcp.port or port, how.timeout_seconds)
        async with asyncio.timeout(how.timeout_seconds):
            return await self._probe_once(how)

    async def _probe_once(self, how: Observe) -> ProbeResult:
        if how.process:
            return await self._process(how.process)
        if how.systemd:
            return await self._systemd_of(user=how.systemd.user).probe(how.systemd.unit)
        if how.file:
            check = how.file
            return await self._runner.run(check, lambda: _file(self._base / check.path, check))
        return ProbeResult(ok=False, detail="nothing says how to see it")

    def _systemd_of(self, *, user: bool) -> "Systemd":
        # Imported with the first service that needs it, because D-Bus takes 2 MB.
        from hotpool_agent.probes.systemd import Systemd  # noqa: PLC0415

        return self._systemd.setdefault(user, Systemd(user=user))

    async def _process(self, check: ProcessCheck) -> ProbeResult:
        if check.name is None:
            path = self._base / (check.pid_file or "")
            return await self._runner.run(check, lambda: processes.by_pid_file(path, check.argument))
        name, last = check.name, self._pids.get(check)
        answer = await self._runner.run(check, lambda: processes.by_name(name, check.argument, last))
        if answer.pid is not None:
            self._pids[check] = answer.pid
        return answer


def _file(path: Path, check: FileCheck) -> ProbeResult:
    try:
        modified = path.stat().st_mtime
    except (FileNotFoundError, NotADirectoryError):
        return ProbeResult(ok=False, absent=True, detail=f"{check.path}: no such file")
    except OSError as error:
        return ProbeResult(ok=False, detail=f"{check.path}: {error.strerror}")
    # A time in the future is no sign of life either: it would hold for ever.
    if check.max_age_seconds is not None and abs(time.time() - modified) > check.max_age_seconds:
        return ProbeResult(ok=False, detail=f"{check.path}: not modified within {check.max_age_seconds:g} s")
    return ProbeResult(ok=True)
