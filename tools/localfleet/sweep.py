"""Kill processes by a mark in their environment, which every process inherits from its parent.

Services outlive their agent by design, so neither their parent nor their session leads to them.
"""

import contextlib
from collections.abc import Iterator
from typing import Final

import psutil

RUN: Final = "HOTPOOL_TEST_RUN"
"""Environment variable: name of a test run, of lower-case letters, digits and hyphens."""
_ROUNDS: Final = 20
_ROUND_SECONDS: Final = 5.0


def sweep(run: str) -> None:
    """Kill every process of a test run but this one and its ancestors. Raises RuntimeError."""
    kill_marked(RUN, run)


def kill_marked(variable: str, value: str) -> None:
    """Kill every process of this user whose environment has this value. Raises RuntimeError if some remain.

    Repeats until none is found, because a process may start another during the search.
    """
    spared = {psutil.Process().pid, *(parent.pid for parent in psutil.Process().parents())}
    for _ in range(_ROUNDS):
        found = [process for process in marked(variable, value) if process.pid not in spared]
        if not found:
            return
        for process in found:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(found, _ROUND_SECONDS)
    raise RuntimeError(f"processes with {variable}={value} survive SIGKILL: {found}")


def marked(variable: str, value: str) -> Iterator[psutil.Process]:
    """Yield the living processes of this user whose environment has this value."""
    for process in psutil.process_iter():
        # Of another user, or already ended.
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(variable) == value and process.status() != psutil.STATUS_ZOMBIE:
                yield process
