"""Use of one service: its own number of requests in progress, and the wait before its stop (B5, C5). I/O."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import structlog

from hotpool_agent.catalogue.model import InFlight, ServiceSpec
from hotpool_agent.node_drain import NodeDrain
from hotpool_agent.notifier import Notifier
from hotpool_agent.probes.in_flight import read_in_flight
from hotpool_agent.probes.prober import Prober

_LOG: Final = structlog.get_logger(__name__)
PERIOD_SECONDS: Final = 2.0
"""Time between the beginnings of two readings (requirement B5)."""


class ServiceUsage:
    """Reader of a service's own number. `changed` is called when the number differs."""

    def __init__(self, prober: Prober, drain: NodeDrain, changed: Callable[[], None]) -> None:
        self.number: int | None = None
        """Number of requests in progress, as the service says; None: not read."""
        self._prober = prober
        self._drain = drain
        self._changed = changed
        self._notifier = Notifier()
        self._read_at = 0.0
        """Time at which the last reading began, by the event loop's clock."""
        self._source: tuple[InFlight, int | None] | None = None
        self._task: asyncio.Task[None] | None = None

    def follow(self, spec: ServiceSpec, state: str) -> None:
        """Read the number while the service stops, or runs on a node that drains."""
        wanted = state == "Stopping" or (state == "Running" and self._drain.active)
        source = (spec.in_flight, spec.port) if wanted and spec.in_flight else None
        if source != self._source:
            self._cancel()
            self._note(None)
            if source:
                self._task = asyncio.create_task(self._read(*source), name=f"{spec.id}: in flight")
            self._source = source
        self._notifier.notify()

    async def wait_unused(self, seconds: float) -> bool:
        """Return True when nothing is in use or the agent's own drain has ended; False after `seconds`.

        A number that was read before this call proves nothing: the service was still offered then.
        """
        began = asyncio.get_running_loop().time()

        def is_unused() -> bool:
            own = self.number == 0 and self._read_at >= began
            return own or self._drain.drained or self._drain.over

        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._notifier.wait_for(is_unused)
        return is_unused()

    async def close(self) -> None:
        """End the reading."""
        if task := self._cancel():
            await asyncio.gather(task, return_exceptions=True)

    def _cancel(self) -> asyncio.Task[None] | None:
        task, self._task = self._task, None
        if task:
            task.cancel()
        return task

    async def _read(self, source: InFlight, port: int | None) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            began = clock()
            number = await self._number(source, port)
            self._read_at = began
            self._note(number)
            self._notifier.notify()
            await asyncio.sleep(began + PERIOD_SECONDS - clock())

    async def _number(self, source: InFlight, port: int | None) -> int | None:
        try:
            return await read_in_flight(self._prober, source, port)
        except Exception as error:  # noqa: BLE001 - a reading that ended would leave its last number in the report
            _LOG.error("internal error", exc_info=error)
            return None

    def _note(self, number: int | None) -> None:
        if number != self.number:
            self.number = number
            self._changed()
