"""Orderly end by a signal: the first one unwinds the program, and none interrupts its clean-up."""

import signal
import sys
from types import FrameType
from typing import Final, NoReturn

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def unwind_on_signals() -> None:
    """Make signals raise SystemExit with 128 plus the number, as in a shell. Ignored signals (nohup) stay ignored."""
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _unwind)


def ignore_signals() -> None:
    """Ignore these signals from now on, also in programs started later."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _unwind(number: int, _frame: FrameType | None) -> NoReturn:
    ignore_signals()
    sys.exit(128 + number)
