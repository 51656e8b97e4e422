"""NVIDIA GPUs of the machine, read in a child process now and then (requirements A12, B1). I/O.

Nothing waits for them: a report before the first answer has no GPUs, and a driver that hangs keeps the last ones.
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
from hotpool_agent.untrusted_text import parse_json

_LOG: Final = structlog.get_logger(__name__)
_QUERY: Final = (sys.executable, "-P", "-m", "hotpool_agent.gpu_query")
_DEVICES: Final = ("nvidiactl", "nvidia[0-9]*", "nvgpu", "nvhost-gpu", "dxg")
"""Device files of drivers: of servers, of Jetson boards, and of WSL. Without one there is nothing to read."""
_OUTPUT_BYTES: Final = 64 * 1024
_MAX_GPUS: Final = 64
_MAX_MIB: Final = 2**31 - 1
_TEXT_MAX: Final = 253


@dataclass(frozen=True, slots=True)
class ReadPlan:
    """Times and place of readings. `seconds`: time limit of one reading, `period`: seconds between two."""

    seconds: float = 30.0
    period: float = 3600.0
    devices: Path = Path("/dev")


class GpuReader:
    """The GPUs as last read."""

    def __init__(self, reporting: Reporting, plan: ReadPlan | None = None) -> None:
        self.gpus: tuple[Gpu, ...] = ()
        self.problem: str | None = None
        """Reason why the last reading failed."""
        self._reporting = reporting
        self._plan = plan or ReadPlan()
        self._commands = CommandRunner()
        self._requested = asyncio.Event()

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
        try:
            gpus, problem = await self._query() if self._has_device() else ((), None)
        except Exception as error:  # noqa: BLE001 - GPUs must not end the agent, which may be out of files or threads
            gpus, problem = (), one_line(f"{type(error).__name__}: {error}")
        if problem and problem != self.problem:
            _LOG.warning("GPUs cannot be read", error=problem)
        self.problem = problem
        if problem is None and gpus != self.gpus:
            self.gpus = gpus
            self._reporting.changed()

    def _has_device(self) -> bool:
        # A driver that hangs does not affect its names in /dev, which is no disk.
        return any(next(self._plan.devices.glob(pattern), None) for pattern in _DEVICES)

    async def _query(self) -> tuple[tuple[Gpu, ...], str | None]:
        """Return the GPUs, and the reason if they cannot be read."""
        # One child at a time: while one that cannot be killed remains, each reading fails at its time limit.
        outcome = await self._commands.run(
            "gpus", Command(_QUERY, Path("/"), output_bytes=_OUTPUT_BYTES), self._plan.seconds
        )
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
