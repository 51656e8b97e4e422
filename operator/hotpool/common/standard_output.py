"""Standard output and standard error of a program: any encoding, and a reader that stops reading.

Must stay quick to import.
"""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from hotpool.common import exit_codes

_OUTPUT: Final = 1
_ERROR: Final = 2


@contextmanager
def tolerant_output() -> Iterator[None]:
    """Let no character and no failed write end the block with a traceback.

    A character that the encoding lacks is replaced by its number. When the reader has closed the pipe, the program ends
    with BROKEN_PIPE; after another error with FAILED, and the cause is on standard error. Text is lost that standard
    error does not take.
    """
    sys.stderr = _stream(sys.stderr, _ErrorFile, _ERROR)
    sys.stdout = _stream(sys.stdout, _OutputFile, _OUTPUT)
    try:
        yield
    finally:
        # Without it the interpreter flushes, and reports an error in a way of its own.
        sys.stdout.flush()


def _stream(stream: Any, kind: type[io.FileIO], descriptor: int) -> io.TextIOWrapper:
    """Return a stream over a file of `kind`, with the encoding of `stream`. None: the program was started without."""
    if stream is None:
        return io.TextIOWrapper(open(os.devnull, "wb"))  # noqa: PTH123 - it stays open
    buffered = io.BufferedWriter(kind(descriptor, "wb", closefd=False))
    return io.TextIOWrapper(
        buffered, encoding=stream.encoding, errors="backslashreplace", line_buffering=stream.line_buffering
    )


class _ErrorFile(io.FileIO):
    """Standard error, where a failed write has no effect."""

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError:
            return len(data)


class _OutputFile(io.FileIO):
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
        os.dup2(os.open(os.devnull, os.O_WRONLY), _OUTPUT)
        raise SystemExit(code)
