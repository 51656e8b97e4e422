"""Keeps the log files of services bounded: at 10 MiB a file becomes `.log.1`, one previous file. I/O in threads.

Run by the wiring. Services hold the file open (they outlive the agent), so it is copied and truncated, never renamed:
they append (O_APPEND) and go on at its beginning. What is written between the end of the copy and the truncation is
lost, a moment of microseconds. Must not know services: it looks at a folder.
"""

import asyncio
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from hotpool_agent.paths import LOG_SUFFIX, previous_log

_LOG: Final = structlog.get_logger(__name__)
_CHUNK: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class RotationLimits:
    """At which size a file is rotated, and how often it is looked at."""

    size: int = 10 * 1024 * 1024
    period: float = 5.0


def is_due(length: int, taken: int, limit: int) -> bool:
    """Whether a file of `length` bytes that takes `taken` bytes of disk is to be rotated.

    Both count: a service that writes without O_APPEND leaves a long file with a hole, which takes no disk.
    """
    return min(length, taken) >= limit


async def rotate_forever(folder: Path, limits: RotationLimits | None = None) -> None:
    """Look at the folder's log files for ever; one rotation at a time. Trouble is logged and ends nothing."""
    limits = limits or RotationLimits()
    while True:
        for path, problem in await asyncio.to_thread(_rotate_all, folder, limits.size):
            _LOG.warning("log file", path=str(path), problem=problem)
        await asyncio.sleep(limits.period)


def rotate(path: Path) -> str | None:
    """Copy the file to `.1`, then empty it. Returns what went wrong, for people.

    When no copy can be made (the disk is full), the file is emptied all the same: a service and its machine suffer more
    from a full disk than from lost lines, and emptying is what gives the disk back.
    """
    with path.open("r+b") as source:
        try:
            _copy(source.fileno(), previous_log(path))
        except OSError as error:
            os.ftruncate(source.fileno(), 0)
            return f"not kept when it became too long: {error.strerror}"
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
    """Replace the target by what the source holds, leaving no half copy. Raises OSError."""
    fresh = target.with_name(f"{target.name}.new")
    try:
        with fresh.open("wb", buffering=0) as copy:
            at = _append(source, _first_byte(source), copy.fileno())
            fresh.replace(target)
            # What came in meanwhile: now only this last, short copy is between the service and the truncation.
            _append(source, at, copy.fileno())
    except OSError:
        fresh.unlink(missing_ok=True)
        raise


def _first_byte(source: int) -> int:
    """Where the data begins, behind the hole that a writer without O_APPEND leaves."""
    try:
        return os.lseek(source, 0, os.SEEK_DATA)
    except OSError:
        return 0


def _append(source: int, start: int, target: int) -> int:
    """Copy from `start` up to the source's present end; returns that end. A source that grows on does not hold us."""
    at, end = start, os.fstat(source).st_size
    while at < end and (chunk := os.pread(source, min(_CHUNK, end - at), at)):
        view = memoryview(chunk)
        while view:
            view = view[os.write(target, view) :]
        at += len(chunk)
    return at
