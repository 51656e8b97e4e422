"""Standard error that never raises and never blocks: lines that cannot be written are lost, and counted.

A log must not stop a program. Standard error may be on a full disk, a pipe whose reader ended or reads no more, or a
terminal that was closed. Must stay quick to import.
"""

import atexit
import io
import os
import select
import sys
import threading
from queue import SimpleQueue
from typing import Final

QUEUED_TEXTS: Final = 1000
_TEXT_CHARACTERS: Final = 16 * 1024
_DRAIN_SECONDS: Final = 1.0
_CLOSED: Final = -1


class LossyStream(io.TextIOBase):
    """Text stream to a file descriptor, which a thread of its own writes. A full queue drops new text."""

    def __init__(self, descriptor: int) -> None:
        self.lost = 0
        """Lines that could not be written."""
        self._descriptor = descriptor
        self._terminal = os.isatty(descriptor)
        # A SimpleQueue may be used in a signal handler, which may interrupt any other call of it.
        self._texts: SimpleQueue[str | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._write_all, name="log", daemon=True)
        self._thread.start()

    @property
    def encoding(self) -> str:  # type: ignore[override]  # a property in typeshed's TextIOBase, too, but writable
        """Encoding, as of any text stream."""
        return "utf-8"

    @property
    def errors(self) -> str:  # type: ignore[override]
        """Any text can be written, even a lone surrogate."""
        return "backslashreplace"

    @property
    def queued(self) -> int:
        """Number of texts that wait to be written."""
        return self._texts.qsize()

    def writable(self) -> bool:
        """Return True, as a stream for writing does."""
        return True

    def isatty(self) -> bool:
        """Return True if the stream was a terminal when the program started."""
        return self._terminal

    def fileno(self) -> int:
        """Return the descriptor that the text is written to."""
        return self._descriptor

    def write(self, text: str) -> int:
        """Queue the text. If the queue is full, the text is lost."""
        if not isinstance(text, str):
            # As other text streams do. click recognises them by this error.
            raise TypeError(f"text is required, not {type(text).__name__}")
        if self._texts.qsize() < QUEUED_TEXTS:
            self._texts.put(text if len(text) <= _TEXT_CHARACTERS else text[:_TEXT_CHARACTERS] + "…\n")
        else:
            self.lost += text.count("\n")
        return len(text)

    def drain(self, seconds: float = _DRAIN_SECONDS) -> None:
        """Wait until all text was written, at most `seconds`. Later text may be lost."""
        self._texts.put(None)
        self._thread.join(seconds)

    def _write_all(self) -> None:
        while (text := self._texts.get()) is not None:
            try:
                self._write_whole(text.encode(self.encoding, self.errors))
            except OSError:
                self.lost += text.count("\n")

    def _write_whole(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._descriptor, view) :]
            except BlockingIOError:
                # Another program that shares the terminal or pipe has made it non-blocking.
                poller = select.poll()
                poller.register(self._descriptor, select.POLLOUT)
                poller.poll()


def protect_stderr() -> LossyStream:
    """Replace `sys.stderr` for the rest of the program's life, and return the new stream.

    It serves every writer: logs, warnings, tracebacks and error messages.
    """
    if isinstance(sys.stderr, LossyStream):
        return sys.stderr
    # Without a standard error, descriptor 2 may be any file that the program has opened since.
    stream = sys.stderr = LossyStream(sys.stderr.fileno() if sys.stderr else _CLOSED)
    atexit.register(stream.drain)
    return stream


def drain_stderr() -> None:
    """Wait until all text of the protected standard error was written, a limited time."""
    if isinstance(sys.stderr, LossyStream):
        sys.stderr.drain()


def is_congested() -> bool:
    """Return True while many lines wait to be written, so that a writer of thousands of lines should pause."""
    return isinstance(sys.stderr, LossyStream) and sys.stderr.queued > QUEUED_TEXTS // 2


def lost_lines() -> int:
    """Return the number of log lines that this program could not write."""
    return sys.stderr.lost if isinstance(sys.stderr, LossyStream) else 0
