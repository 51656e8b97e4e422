"""Probes of services, of seven kinds (requirements A3, A5): I/O, any error is a failure.

Must not know how often to probe, or how many failures count.
"""

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import aiohttp

from hotpool_agent.blocking import SingleFlightRunner
from hotpool_agent.catalogue.model import (
    ExecCheck,
    FileCheck,
    GrpcCheck,
    HttpCheck,
    Observe,
    Probe,
    ProcessCheck,
    TcpCheck,
)
from hotpool_agent.probes import addresses, http_tcp, processes
from hotpool_agent.probes.addresses import LOOPBACKS, TimeLimit, first_success
from hotpool_agent.probes.command import Command, CommandRunner
from hotpool_agent.probes.http_tcp import ProbeResult
from hotpool_agent.probes.tls import tls_context

if TYPE_CHECKING:
    from types import ModuleType

    from hotpool_agent.probes.systemd import Systemd

_PROGRAM_SHOWN: Final = 60


@dataclass(frozen=True, slots=True)
class Workplace:
    """Folder, relative to the catalogue's, and additional variables of the commands of one service."""

    folder: str = "."
    env: Mapping[str, str] = field(default_factory=dict)


class Prober:
    """Prober of all services of a node. `base`: the catalogue's folder. Does not close the session."""

    def __init__(self, session: aiohttp.ClientSession, base: Path) -> None:
        self._session = session
        self._base = base
        self._runner = SingleFlightRunner()
        self._commands = CommandRunner()
        self._systemd: dict[bool, Systemd] = {}
        """Connections by `user` of the checks."""
        self._pids: dict[ProcessCheck, int] = {}
        """Last known pid, tested first because reading about all processes is slow."""

    async def probe(self, probe: Probe, port: int | None, workplace: Workplace | None = None) -> ProbeResult:
        """Probe a service once, within its time-out. `port`: used where the probe names none. Never raises."""
        try:
            return await self._probe(probe, port or 0, workplace or Workplace())
        except TimeoutError:
            return ProbeResult(ok=False, detail=f"no answer in {probe.timeout_seconds:g} s")
        except Exception as error:  # noqa: BLE001 - any error is a failed probe, and must not end the observation
            return ProbeResult(ok=False, detail=type(error).__name__, volatile=http_tcp.one_line(str(error)))

    async def close(self) -> None:
        """Close the connections, and kill running commands. No probe may follow."""
        self._commands.close()
        await asyncio.gather(*(systemd.close() for systemd in self._systemd.values()))

    async def _probe(self, probe: Probe, port: int, workplace: Workplace) -> ProbeResult:
        limit = TimeLimit(probe.timeout_seconds)
        if probe.http:
            return await self._http(probe.http, probe.http.port or port, limit)
        if probe.tcp:
            return await self._tcp(probe.tcp, probe.tcp.port or port, limit)
        if probe.grpc:
            return await self._grpc(probe.grpc, probe.grpc.port or port, limit)
        if probe.exec:
            return await self._exec(probe.exec, workplace, limit.seconds)
        async with asyncio.timeout_at(limit.deadline):
            return await self._probe_local(probe)

    async def _http(self, check: HttpCheck, port: int, limit: TimeLimit) -> ProbeResult:
        context = None
        if check.scheme == "HTTPS":
            try:
                async with asyncio.timeout_at(limit.deadline):
                    context = await self._tls_context(check)
            except TimeoutError:
                return limit.exceeded(f"{check.ca_file}: not read")
            except ssl.SSLError:
                return ProbeResult(ok=False, detail=f"{check.ca_file}: no PEM certificate")
            except OSError as error:
                return ProbeResult(ok=False, detail=f"{check.ca_file}: {error.strerror}")
        return await self._try_each(
            check.host,
            lambda address: http_tcp.http(self._session, check, address, port, context),
            lambda address: http_tcp.http_name(check, address, port),
            limit,
        )

    async def _tls_context(self, check: HttpCheck) -> ssl.SSLContext:
        path, insecure = self._base / check.ca_file if check.ca_file else None, check.insecure_skip_verify
        return await self._runner.run(("tls", path, insecure), lambda: tls_context(path, insecure=insecure))

    async def _tcp(self, check: TcpCheck, port: int, limit: TimeLimit) -> ProbeResult:
        return await self._try_each(
            check.host,
            lambda address: http_tcp.tcp(address, port),
            lambda address: http_tcp.endpoint(address, port),
            limit,
        )

    async def _grpc(self, check: GrpcCheck, port: int, limit: TimeLimit) -> ProbeResult:
        async with asyncio.timeout_at(limit.deadline):
            grpc_health = await self._runner.run("grpc", _import_grpc)

        async def attempt(address: str) -> ProbeResult:
            # gRPC has one error for a port without a listener and for others, and connects even to itself.
            connected = await http_tcp.tcp(address, port)
            return await grpc_health.check(address, port, check.service, limit.seconds) if connected.ok else connected

        return await self._try_each(
            None, attempt, lambda address: grpc_health.name(address, port, check.service), limit
        )

    async def _try_each(
        self,
        host: str | None,
        attempt: Callable[[str], Awaitable[ProbeResult]],
        name: Callable[[str], str],
        limit: TimeLimit,
    ) -> ProbeResult:
        """Probe the host's addresses; without a host both loopback addresses."""
        found = LOOPBACKS
        if host is not None:
            try:
                async with asyncio.timeout_at(limit.deadline):
                    # Not in the event loop's threads, which a name server without an answer would exhaust.
                    found = await self._runner.run(("host", host), lambda: addresses.resolve(host))
            except TimeoutError:
                return limit.exceeded(f"{host}: name not resolved")
            except OSError as error:
                return ProbeResult(ok=False, detail=f"{host}: {error.strerror}")
        return await first_success(found, attempt, name, limit)

    async def _exec(self, check: ExecCheck, workplace: Workplace, seconds: float) -> ProbeResult:
        folder = self._base / workplace.folder
        command = Command(check.command, folder, workplace.env)
        outcome = await self._commands.run((check, folder), command, seconds)
        if outcome.failure is None:
            return ProbeResult(ok=True)
        program = http_tcp.one_line(check.command[0])[:_PROGRAM_SHOWN]
        output = http_tcp.one_line(outcome.output.decode(errors="replace"))
        return ProbeResult(ok=False, detail=f"{program}: {outcome.failure}", volatile=output)

    async def _probe_local(self, probe: Probe) -> ProbeResult:
        if isinstance(probe, Observe) and probe.process:
            return await self._process(probe.process)
        if isinstance(probe, Observe) and probe.systemd:
            return await self._systemd_of(user=probe.systemd.user).probe(probe.systemd.unit)
        if isinstance(probe, Observe) and probe.file:
            check = probe.file
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


def _import_grpc() -> "ModuleType":
    # Imported with the first service that needs it, because gRPC takes 20 MB of memory.
    from hotpool_agent.probes import grpc_health  # noqa: PLC0415

    return grpc_health


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
