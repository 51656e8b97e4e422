"""Removal of what a test run or the demo left: processes that carry its id in their environment, and its clusters."""

import os
import signal
import subprocess
from typing import Final

import psutil

from localfleet.kind import kind_program

RUN: Final = "HOTPOOL_TEST_RUN"
"""Environment variable with the id of the run; each process of the run inherits it."""
_GRACE_SECONDS: Final = 5.0


def end_processes(run: str) -> list[int]:
    """Kill every process of this user that carries the id, except this one; return their ids."""
    found: list[psutil.Process] = []
    while left := [process for process in psutil.process_iter() if _carries(process, run)]:
        for process in left:
            process.send_signal(signal.SIGKILL)
        psutil.wait_procs(left, _GRACE_SECONDS)
        found += left
    return [process.pid for process in found]


def delete_clusters(run: str) -> None:
    """Delete every cluster whose name begins with the id."""
    kind = str(kind_program())
    listed = subprocess.run([kind, "get", "clusters"], capture_output=True, text=True, check=True).stdout
    for name in listed.split():
        if name.startswith(run):
            subprocess.run([kind, "delete", "cluster", "--name", name], capture_output=True, check=True)


def _carries(process: psutil.Process, run: str) -> bool:
    try:
        return (
            process.pid != os.getpid()
            and process.status() != psutil.STATUS_ZOMBIE
            and process.environ().get(RUN) == run
        )
    except psutil.Error:
        return False
