"""Standard output of a program: any encoding, and a reader that stops reading.

Must stay quick to import.
"""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from hotpool.common import exit_codes

_DESCRIPTOR: Final = 1


@contextmanager
def tolerant_output() -> Iterator[None]:
    """Let no character and no failed write end the block with a traceback.

    A character that the encoding lacks is replaced by its number. When the reader has closed the pipe, the program ends
    with BROKEN_PIPE; after another error with FAILED, and the cause is on standard error.
    """
    sys.stdout = _stream()
    try:
        yield
    finally:
        # Without it the interpreter flushes, and reports an error in a way of its own.
        sys.stdout.flush()


def _stream() -> io.TextIOWrapper:
    stream: Any = sys.stdout
    if stream is None:
        # The program was started without standard output.
        return io.TextIOWrapper(open(os.devnull, "wb"))  # noqa: PTH123 - it stays open
    raw = io.BufferedWriter(_File(_DESCRIPTOR, "wb", closefd=False))
    return io.TextIOWrapper(
        raw, encoding=stream.encoding, errors="backslashreplace", line_buffering=stream.line_buffering
    )


class _File(io.FileIO):
    """Standard output, where a failed write ends the program."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            code = exit_codes.BROKEN_PIPE
        except OSError as error:
            print(f"cannot write to standard output: {error.strerror}", file=sys.stderr)  # noqa: T201
            code = exit_codes.FAILED
        # What is still buffered must not fail once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), _DESCRIPTOR)
        raise SystemExit(code)
