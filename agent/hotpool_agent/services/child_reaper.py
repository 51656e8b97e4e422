"""Reaping of orphans (requirement A13): the agent is a subreaper, so those of its services become its children. Linux.

The agent's own children are left to the code that started them, which needs their exit status: those on a list, and
any other for a moment, because its owner waits for it anyway.
"""

import asyncio
import ctypes
import os
import signal
from contextlib import suppress
from typing import Final

from hotpool_agent.services import process_table
from hotpool_agent.services.process_table import Key

_PR_SET_CHILD_SUBREAPER: Final = 36
_PATIENCE: Final = 1.0
"""Seconds that a zombie must exist before it counts as an orphan."""
_owned: Final[set[int]] = set()


def leave(pid: int) -> None:
    """Leave this child to its owner."""
    _owned.add(pid)


def take(pid: int) -> None:
    """Forget a child that its owner has reaped."""
    _owned.discard(pid)


def become_subreaper() -> None:
    """Make orphans among all descendants children of this process. Without effect where the kernel refuses."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


async def reap_forever() -> None:
    """Reap orphans soon after they ended, until cancelled. Must run in the main thread."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGCHLD, ended.set)
    seen: set[Key] = set()
    ended.set()  # Some may have ended before.
    try:
        while True:
            await ended.wait()
            ended.clear()
            await asyncio.sleep(_PATIENCE)
            zombies = {key for key in _zombies() if key[0] not in _owned}
            for pid, _ in zombies & seen:
                _reap(pid)
            seen = zombies - seen
            if seen:
                ended.set()
    finally:
        loop.remove_signal_handler(signal.SIGCHLD)


def _zombies() -> set[Key]:
    """Return the children of this process that have ended."""
    with suppress(ChildProcessError):
        if os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT | os.WNOHANG):
            own = os.getpid()
            return {entry.key for entry in process_table.read_entries() if entry.parent == own and not entry.alive}
    return set()


def _reap(pid: int) -> None:
    with suppress(ChildProcessError):
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG)
