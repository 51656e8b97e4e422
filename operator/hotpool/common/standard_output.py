"""Standard output and standard error of a program: any encoding, and a reader that stops reading.

Must stay quick to import.
"""

import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, NoReturn

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
    sys.stderr = _stream(sys.stderr, lambda: _ErrorFile(_ERROR, "wb", closefd=False))
    sys.stdout = _stream(sys.stdout, lambda: _OutputBuffer(io.FileIO(_OUTPUT, "wb", closefd=False)))
    try:
        yield
    finally:
        # Without it the interpreter flushes, and reports an error in a way of its own.
        sys.stdout.flush()


def _stream(stream: Any, open_file: Callable[[], io.FileIO | io.BufferedWriter]) -> io.TextIOWrapper:
    """Return a stream over a file, with the encoding of `stream`. None: the program was started without."""
    if stream is None:
        return io.TextIOWrapper(open(os.devnull, "wb"))  # noqa: PTH123 - it stays open
    return io.TextIOWrapper(
        open_file(),
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=stream.line_buffering,
    )


class _ErrorFile(io.FileIO):
    """Standard error, where a failed write has no effect.

    It has no buffer below the text: Ctrl-C after a write, but before this method returns, would leave the written bytes
    in it, and they would be written a second time.
    """

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError:
            return len(data)


class _OutputBuffer(io.BufferedWriter):
    """Buffer of standard output, where a failed write ends the program.

    The buffer and not the file below it: see `_ErrorFile`. FileIO itself returns before a signal is handled.
    """

    def write(self, data: Any) -> int:
        with _ending_on_error():
            return super().write(data)

    def flush(self) -> None:
        with _ending_on_error():
            super().flush()


@contextmanager
def _ending_on_error() -> Iterator[None]:
    """End the program if the block raises OSError."""
    try:
        yield
    except BrokenPipeError:
        _end(exit_codes.BROKEN_PIPE)
    except OSError as error:
        print(f"cannot write to standard output: {error.strerror}", file=sys.stderr)  # noqa: T201
        _end(exit_codes.FAILED)


def _end(code: int) -> NoReturn:
    """Raise SystemExit. What is still buffered must not fail once more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), _OUTPUT)
    raise SystemExit(code)
