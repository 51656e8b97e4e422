"""Rotation of the log files of services: at 10 MiB a file is copied to `.log.1`, the only previous one. I/O in threads.

Of a much larger file only the last 64 MiB are copied.

Services hold the file open because they outlive the agent. Therefore it is copied and truncated, never renamed; they
append (O_APPEND) and continue at its beginning. Output between the end of the copy and the truncation, a moment of
microseconds, is lost. Must not know services: it only scans a folder.
"""

import asyncio
import os
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

import structlog

from hotpool_agent.blocking import run_blocking
from hotpool_agent.paths import LOG_SUFFIX, previous_log

_LOG: Final = structlog.get_logger(__name__)
_CHUNK: Final = 1024 * 1024
_ROTATED_BYTES: Final = 10 * 1024 * 1024
_KEPT_BYTES: Final = 64 * 1024 * 1024
"""Most that is copied. A flood of output between two checks must not take its space twice, and minutes to copy."""


def is_due(length: int, allocated: int, limit: int) -> bool:
    """Return True if a file of `length` bytes, of which `allocated` bytes are on disk, must be rotated.

    Both must reach the limit: a writer without O_APPEND leaves a long file with a hole, which takes no disk space.
    """
    return min(length, allocated) >= limit


async def rotate_forever(folder: Path, size: int = _ROTATED_BYTES, period: float = 5.0) -> None:
    """Check the folder's log files each `period` seconds, and rotate those of `size` bytes, one at a time.

    Errors are logged and do not end the loop.
    """
    while True:
        # A file system that hangs stops rotation, and nothing else.
        try:
            problems = await run_blocking(partial(_rotate_all, folder, size))
        except OSError as error:  # No file or thread is free, or the folder cannot be read.
            problems = [(folder, f"not rotated: {error.strerror}")]
        for path, problem in problems:
            _LOG.warning("log rotation incomplete", path=str(path), problem=problem)
        await asyncio.sleep(period)


def rotate(path: Path) -> str | None:
    """Copy the file to `.1`, then truncate it. Return the error of a failed copy as text.

    If the copy fails because the disk is full, the file is truncated all the same: a full disk harms a service and its
    machine more than lost lines do, and truncation frees the disk.
    """
    with path.open("r+b") as source:
        try:
            _copy(source.fileno(), previous_log(path))
        except OSError as error:
            os.ftruncate(source.fileno(), 0)
            return f"truncated without a copy: {error.strerror}"
        os.ftruncate(source.fileno(), 0)
    return None


def _rotate_all(folder: Path, limit: int) -> list[tuple[Path, str]]:
    problems: list[tuple[Path, str]] = []
    with suppress(FileNotFoundError):
        for path in sorted(folder.glob(f"*{LOG_SUFFIX}")):
            try:
                stat = path.stat()
                if is_due(stat.st_size, stat.st_blocks * 512, limit) and (problem := rotate(path)):
                    problems.append((path, problem))
            except OSError as error:
                problems.append((path, f"not rotated: {error.strerror}"))
    return problems


def _copy(source: int, target: Path) -> None:
    """Replace the target by a copy of the source. Raises OSError and leaves no partial copy."""
    fresh = target.with_name(f"{target.name}.new")
    try:
        with fresh.open("wb", buffering=0) as copy:
            start = max(_first_byte(source), os.fstat(source).st_size - _KEPT_BYTES)
            at = _append(source, start, copy.fileno())
            fresh.replace(target)
            # Copy the output of the meantime. Only this short copy precedes the truncation, so little can be lost.
            _append(source, at, copy.fileno())
    except OSError:
        fresh.unlink(missing_ok=True)
        raise


def _first_byte(source: int) -> int:
    """Return the offset of the data, behind the hole that a writer without O_APPEND leaves."""
    try:
        return os.lseek(source, 0, os.SEEK_DATA)
    except OSError:
        return 0


def _append(source: int, start: int, target: int) -> int:
    """Copy from `start` to the source's current end and return that end. Data appended meanwhile is not copied."""
    at, end = start, os.fstat(source).st_size
    while at < end and (chunk := os.pread(source, min(_CHUNK, end - at), at)):
        view = memoryview(chunk)
        while view:
            view = view[os.write(target, view) :]
        at += len(chunk)
    return at
