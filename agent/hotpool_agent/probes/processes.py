"""Search for the process of an observed service, by name or by pid file (requirement A3). Blocking I/O, Linux.

Finds only processes that the agent's user may see in /proc.
"""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from hotpool_agent.probes.http_tcp import ProbeResult

_PROC: Final = Path("/proc")
_LINE_LIMIT: Final = 64
"""Longest first line of a pid file that is read, in characters."""


def by_name(name: str, argument: str | None, first: int | None) -> ProbeResult:
    """Find a process with this name and, if given, this argument: `first` if it matches, else the lowest pid."""
    for pid in _candidates(first):
        # The agent itself runs under an interpreter's name, and must not match.
        if pid != os.getpid() and _matches(pid, name, argument):
            return ProbeResult(ok=True, pid=pid)
    return ProbeResult(ok=False, absent=True, detail=f"no process {name}{_with(argument)}")


def by_pid_file(path: Path, argument: str | None) -> ProbeResult:
    """Find the process whose pid is the first line of the file. A process without the argument has reused the pid."""
    try:
        with path.open(encoding="ascii", errors="replace") as file:
            text = file.readline(_LINE_LIMIT).strip()
    except (FileNotFoundError, NotADirectoryError):
        return ProbeResult(ok=False, absent=True, detail=f"{path}: no such file")
    except OSError as error:
        return ProbeResult(ok=False, detail=f"{path}: {error.strerror}")
    if not text.isdecimal():
        return ProbeResult(ok=False, detail=f"{path}: holds no process id")
    pid = int(text)
    if _matches(pid, None, argument):
        return ProbeResult(ok=True, pid=pid)
    return ProbeResult(ok=False, absent=True, detail=f"{path}: no process {pid}{_with(argument)}")


def _candidates(first: int | None) -> Iterable[int]:
    if first is not None:
        yield first
    yield from sorted(int(entry.name) for entry in _PROC.iterdir() if entry.name.isdecimal())


def _matches(pid: int, name: str | None, argument: str | None) -> bool:
    try:
        words = (_PROC / str(pid) / "cmdline").read_bytes().removesuffix(b"\0").split(b"\0")
        known_as = (_PROC / str(pid) / "comm").read_bytes().removesuffix(b"\n")
    except OSError:
        return False
    # Zombies and kernel threads have no arguments at all, not even a name.
    if words == [b""]:
        return False
    if name is not None and os.fsencode(name) not in {known_as, words[0].rpartition(b"/")[2]}:
        return False
    return argument is None or os.fsencode(argument) in words[1:]


def _with(argument: str | None) -> str:
    return "" if argument is None else f" with argument {argument}"
