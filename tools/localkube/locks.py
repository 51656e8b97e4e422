"""Lock between commands that run at the same time.

Uses flock on a file or a folder; a lock ends with its process, so nothing stays locked. Must not leave lock files
beside a cluster (the cluster's own folder is the lock).
"""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(path: Path, make: Callable[[], object], waiting: Callable[[], None] = lambda: None) -> Iterator[int]:
    """Hold the lock of what ``make`` puts at ``path``; ``waiting`` is called if another process holds it."""
    descriptor = _acquire(path, make, waiting)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _acquire(path: Path, make: Callable[[], object], waiting: Callable[[], None]) -> int:
    """Lock what is at the path now: its former holder may have deleted it while we waited."""
    while True:
        make()
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            continue
        try:
            _flock(descriptor, waiting)
            if _is_at(descriptor, path):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _flock(descriptor: int, waiting: Callable[[], None]) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        waiting()
        fcntl.flock(descriptor, fcntl.LOCK_EX)


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
