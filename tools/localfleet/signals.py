"""An orderly end by a signal: the first one unwinds the program, and none interrupts the removal of what it made."""

import signal
import sys
from types import FrameType
from typing import Final, NoReturn

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def unwind_on_signals() -> None:
    """Exit by SystemExit, with 128 and the number as in a shell; a signal that is ignored (nohup) stays so."""
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _unwind)


def ignore_signals() -> None:
    """Ignore them from now on, also in programs that are started from now on."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _unwind(number: int, _frame: FrameType | None) -> NoReturn:
    ignore_signals()
    sys.exit(128 + number)
