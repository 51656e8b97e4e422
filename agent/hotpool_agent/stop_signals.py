"""Signals to a running agent: the first SIGTERM or SIGINT stops it in order, a second one at once; SIGHUP reloads."""

import asyncio
import signal
from typing import Final

from hotpool.common import early_signals, exit_codes

_STOP: Final = (signal.SIGTERM, signal.SIGINT)


class StopSignals:
    """Handlers of a process's signals, in the running event loop."""

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        """Set by the first SIGTERM or SIGINT."""
        self.hurry = asyncio.Event()
        """Set by the second one."""
        self.reload_requests = asyncio.Queue[None]()
        """Gets an item at each SIGHUP."""
        self.exit_code = exit_codes.OK
        """128 + number of the signal that set `hurry`, as shells and scripts expect."""

    def install(self) -> None:
        """Install the handlers. Signals that arrived while the program started count."""
        loop = asyncio.get_running_loop()
        for number in _STOP:
            loop.add_signal_handler(number, self._on_stop, number)
        loop.add_signal_handler(signal.SIGHUP, self.reload_requests.put_nowait, None)
        if not early_signals.received.isdisjoint(_STOP):
            self.stop.set()
        if signal.SIGHUP in early_signals.received:
            self.reload_requests.put_nowait(None)

    def _on_stop(self, number: signal.Signals) -> None:
        if not self.stop.is_set():
            self.stop.set()
        elif not self.hurry.is_set():
            self.exit_code = 128 + number
            self.hurry.set()
