"""Clocks of the operator, passed as arguments so that tests can simulate time.

Monotonic seconds measure silence and rates. The wall clock is only written into objects.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import inf
from typing import Final

from hotpool.api.meta import timestamp

TURN_SECONDS: Final = 0.01
"""Time that steps may take in one turn of the event loop; the last one may exceed it."""
_SHORTEST_WAIT: Final = 0.001
"""A difference of rounding must not become a busy loop."""


class Pace:
    """Bound of a turn of the event loop, shared by all work that takes many small steps: await it before each.

    While there is such work, the time of everything else in a turn counts, too, for example of responses that arrive.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._began: float | None = None
        self._working = False
        """True if a step was taken in this turn."""

    async def __call__(self) -> None:
        """Let other tasks run while the turn is long enough; state may change meanwhile."""
        while self._began is not None and self._clock() - self._began > TURN_SECONDS:  # noqa: ASYNC110 - waits for a turn.
            await asyncio.sleep(0)
        if self._began is None:
            self._begin_turn()
        self._working = True

    def _begin_turn(self) -> None:
        self._began, self._working = self._clock(), False
        asyncio.get_running_loop().call_soon(self._end_turn)

    def _end_turn(self) -> None:
        if self._working:
            self._begin_turn()
        else:
            self._began = None


@dataclass(frozen=True, slots=True)
class Clock:
    """Monotonic clock and wall clock, and the pace of the one event loop."""

    monotonic: Callable[[], float] = time.monotonic
    unix: Callable[[], float] = time.time
    pace: Pace = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "pace", Pace(self.monotonic))

    def __call__(self) -> float:
        """Return monotonic seconds."""
        return self.monotonic()

    async def wait(self, event: asyncio.Event, until: float) -> None:
        """Wait for an event until a time (monotonic seconds; infinite: without limit)."""
        if until <= self():  # a time-out would take three turns of the loop
            await asyncio.sleep(0)
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(None if until == inf else max(_SHORTEST_WAIT, until - self())):
                await event.wait()

    def timestamp(self) -> str:
        """Return the current time as RFC 3339 in UTC."""
        return timestamp(datetime.fromtimestamp(self.unix(), UTC))

    @property
    def offset(self) -> float:
        """Unix time minus monotonic seconds; constant unless the wall clock is set."""
        return self.unix() - self.monotonic()
