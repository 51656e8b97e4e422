"""GPUs of the machine, read in a child process of each vendor now and then (requirements A12, B1). I/O.

Nothing waits for them: before the first answer, they are those of the former agent process, and a driver that hangs
keeps the last ones of its vendor.
"""

import asyncio
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import structlog

from hotpool.api.capability import Gpu
from hotpool_agent.probes.command import Command, CommandRunner
from hotpool_agent.probes.http_tcp import one_line
from hotpool_agent.reporting_port import Reporting
from hotpool_agent.state_store import StateStore
from hotpool_agent.untrusted_text import parse_json

_LOG: Final = structlog.get_logger(__name__)
_PROGRAM: Final = (sys.executable, "-P", "-m")
_NVIDIA_DEVICES: Final = ("nvidiactl", "nvidia[0-9]*", "nvgpu", "nvhost-gpu", "dxg")
"""Device files of drivers: of servers, of Jetson boards, and of WSL. Without one there is nothing to read."""
_AMD_DRIVER: Final = "module/amdgpu"
_OUTPUT_BYTES: Final = 64 * 1024
_MAX_GPUS: Final = 64
_MAX_MIB: Final = 2**31 - 1
_TEXT_MAX: Final = 253


@dataclass(frozen=True, slots=True)
class ReadPlan:
    """Times and places of readings. `seconds`: time limit of one reading, `period`: seconds between two."""

    seconds: float = 30.0
    period: float = 3600.0
    devices: Path = Path("/dev")
    sysfs: Path = Path("/sys")
    amd_names: Path = Path("/usr/share/libdrm/amdgpu.ids")
    """File of libdrm with names of models."""


class GpuReader:
    """The GPUs as last read. `store`: keeps them for the next agent process."""

    def __init__(self, reporting: Reporting, plan: ReadPlan | None = None, store: StateStore | None = None) -> None:
        self.problem: str | None = None
        """Reason why the last reading failed."""
        self._by_vendor: dict[str, tuple[Gpu, ...]] = dict(store.state.gpus) if store else {}
        self._reporting = reporting
        self._plan = plan or ReadPlan()
        self._store = store
        self._commands = CommandRunner()
        self._requested = asyncio.Event()

    @property
    def gpus(self) -> tuple[Gpu, ...]:
        """The GPUs of all vendors, in a fixed order."""
        return tuple(gpu for vendor in sorted(self._by_vendor) for gpu in self._by_vendor[vendor])[:_MAX_GPUS]

    def request(self) -> None:
        """Read again soon."""
        self._requested.set()

    async def run(self) -> None:
        """Read now, at each request and after each period, until cancelled."""
        while True:
            self._requested.clear()
            await self._read()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._plan.period):
                    await self._requested.wait()

    async def _read(self) -> None:
        found = dict(zip(("amd", "nvidia"), await asyncio.gather(self._amd(), self._nvidia()), strict=True))
        problem = "; ".join(problem for _, problem in found.values() if problem) or None
        if problem and problem != self.problem:
            _LOG.warning("GPUs cannot be read", error=problem)
        self.problem = problem
        # A vendor that cannot be read keeps its GPUs.
        read = {vendor: gpus for vendor, (gpus, failed) in found.items() if failed is None}
        by_vendor = {vendor: gpus for vendor, gpus in {**self._by_vendor, **read}.items() if gpus}
        if by_vendor != self._by_vendor:
            self._by_vendor = by_vendor
            if self._store:
                self._store.state.gpus = by_vendor
                self._store.save()
            self._reporting.changed()

    # A driver that hangs does not affect its names in /dev and in /sys, which are no disks.

    async def _nvidia(self) -> tuple[tuple[Gpu, ...], str | None]:
        if not any(next(self._plan.devices.glob(pattern), None) for pattern in _NVIDIA_DEVICES):
            return (), None
        return await self._query("hotpool_agent.gpu_query")

    async def _amd(self) -> tuple[tuple[Gpu, ...], str | None]:
        if not (self._plan.sysfs / _AMD_DRIVER).exists():
            return (), None
        return await self._query("hotpool_agent.amd_gpu_query", str(self._plan.sysfs), str(self._plan.amd_names))

    async def _query(self, module: str, *arguments: str) -> tuple[tuple[Gpu, ...], str | None]:
        """Return the GPUs that a program prints, and the reason if they cannot be read."""
        try:
            return await self._run((*_PROGRAM, module, *arguments), module)
        except Exception as error:  # noqa: BLE001 - GPUs must not end the agent, which may be out of files or threads
            return (), one_line(f"{type(error).__name__}: {error}")

    async def _run(self, argv: tuple[str, ...], key: str) -> tuple[tuple[Gpu, ...], str | None]:
        # One child of a vendor at a time: while one that cannot be killed remains, each reading fails at its limit.
        command = Command(argv, Path("/"), output_bytes=_OUTPUT_BYTES)
        outcome = await self._commands.run(key, command, self._plan.seconds)
        text = outcome.output.decode(errors="replace").strip().rpartition("\n")[2]
        if outcome.failure is not None:
            return (), ": ".join(filter(None, (outcome.failure, one_line(text))))
        try:
            answer = parse_json(text)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            return (), "no valid answer"
        if "error" in answer:
            return (), one_line(str(answer["error"]))
        found = answer.get("gpus")
        return tuple(_gpu(item) for item in (found if isinstance(found, list) else [])[:_MAX_GPUS]), None


def _gpu(item: Any) -> Gpu:
    """Return a GPU within the bounds of a report. A value that is not valid is left out."""
    values = item if isinstance(item, dict) else {}
    model, memory = values.get("model"), values.get("memoryMiB")
    printable = "".join(filter(str.isprintable, model))[:_TEXT_MAX] if isinstance(model, str) else None
    return Gpu(
        model=printable or None,
        memory_mib=memory if isinstance(memory, int) and 0 <= memory <= _MAX_MIB else None,
    )
