"""Real hangs: a file without a writer."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def hanging_file(path: Path) -> Iterator[None]:
    """Replace the file by a FIFO, whose readers hang until the end of the block. The file is missing afterwards."""
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    try:
        yield
    finally:
        # Open for both: that never fails. The file must be gone before the end: a later reader would hang for good.
        writer = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        path.unlink()
        os.close(writer)


def busy_threads() -> list[threading.Thread]:
    """Return the threads of calls that have not ended."""
    return [thread for thread in threading.enumerate() if thread.name == "blocking call"]


@contextmanager
def held_open(path: Path) -> Iterator[None]:
    """Hold the FIFO open for writing, and write nothing: readers that do not wait for a writer hang, too."""
    handle = os.open(path, os.O_RDWR)
    try:
        yield
    finally:
        os.close(handle)
