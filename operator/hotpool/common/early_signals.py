"""Signals that arrive while a program starts. Its imports take a second, in which the default would kill it.

As process 1 of a container the program would even miss them: the kernel drops signals without a handler there. Must
import nothing slow.
"""

import signal
from types import FrameType
from typing import Final

from hotpool.common import exit_codes

received: Final[set[int]] = set()
"""Signals that were received since `hold`, for the program's own handlers."""


def hold(*numbers: signal.Signals) -> None:
    """Handle these signals until the program installs its own handlers.

    SIGTERM and SIGINT end the program with exit code 0, as nothing has begun yet. Others are only recorded.
    """
    for number in numbers:
        signal.signal(number, _on_signal)


def _on_signal(number: int, _frame: FrameType | None) -> None:
    received.add(number)
    if number in {signal.SIGTERM, signal.SIGINT}:
        # Library code may catch this; the program then finds the signal in `received`.
        raise SystemExit(exit_codes.OK)
