"""Last output lines of a service, for the message of its failure. I/O, with a time limit."""

import os
import re
from pathlib import Path
from stat import S_ISREG
from typing import Final

from hotpool_agent.blocking import run_blocking

_LINES: Final = 10
_BYTES: Final = 1024
_READ_BYTES: Final = 8192
_SECONDS: Final = 0.5
_ERROR_LENGTH: Final = 1024
"""Longest `lastError` of a report."""
_ESCAPES: Final = re.compile(
    r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|[^\x20-\x7e\xa0-\U0010ffff]"
)
"""Colours and other escape sequences of terminals, and control characters."""


def with_output(error: str | None, output: tuple[str, ...]) -> str | None:
    """Add output lines to an error, as one line. If the report has no room for all, the last ones stay."""
    if not error or not output:
        return error
    head = f"{error}; last output: "
    return head + " | ".join(output)[-max(1, _ERROR_LENGTH - len(head)) :]


async def last_lines(log: Path, start: int) -> tuple[str, ...]:
    """Return the last lines of the file behind the offset `start`: at most 10 lines and 1 KiB of UTF-8, no empty ones.

    Return nothing if the file cannot be read in half a second.
    """
    try:
        return _bounded(await run_blocking(lambda: _read(log, start), _SECONDS))
    except OSError:  # Also TimeoutError.
        return ()


def _read(log: Path, start: int) -> bytes:
    # Without O_NONBLOCK a named pipe would block.
    handle = os.open(log, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        stat = os.fstat(handle)
        if not S_ISREG(stat.st_mode):
            return b""
        # A file that is shorter than at the start was rotated.
        begin = start if start <= stat.st_size else 0
        return os.pread(handle, _READ_BYTES, max(begin, stat.st_size - _READ_BYTES))
    finally:
        os.close(handle)


def _bounded(data: bytes) -> tuple[str, ...]:
    # A progress bar rewrites its line by carriage returns.
    text = data.decode(errors="replace").replace("\r\n", "\n")
    lines = (_ESCAPES.sub("", line.rpartition("\r")[2]).strip() for line in text.split("\n"))
    chosen: list[str] = []
    room = _BYTES
    for line in reversed([line for line in lines if line][-_LINES:]):
        if room <= 0:
            break
        cut = line.encode()[-room:].decode(errors="ignore")
        chosen.append(cut)
        room -= len(cut.encode()) + 1
    return tuple(reversed(chosen))
