"""A process of the fleet, with its output in a file, ended by its own id, awaited with a deadline."""

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

END_SECONDS = 20.0
POLL_SECONDS = 0.01


class TooLate(AssertionError):  # noqa: N818 - what happened.
    """A condition did not hold in time."""


def wait_for(what: str, probe: Callable[[], T], seconds: float = 60.0) -> T:
    """Poll until `probe` returns a true value, and return it. Raises TooLate with `what` and the last value."""
    deadline = time.monotonic() + seconds
    while True:
        found = probe()
        if found:
            return found
        if time.monotonic() > deadline:
            raise TooLate(f"not within {seconds:g} s: {what}; last seen: {found!r}")
        time.sleep(POLL_SECONDS)


def ended_with_parent() -> list[str]:
    """Return a command prefix that makes the kernel kill the program when this process is killed.

    Empty in other threads than the main one: the kernel would kill the program at the end of the thread.
    """
    setpriv = shutil.which("setpriv")
    main = threading.current_thread() is threading.main_thread()
    return [setpriv, "--pdeathsig", "KILL"] if setpriv and main else []


class ManagedProcess:
    """A program that runs until stopped, in a session of its own: Ctrl-C reaches it only through `stop`."""

    def __init__(self, name: str, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        self.name = name
        self.log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [*ended_with_parent(), *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **environment},
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """True while the process lives."""
        return self._process.poll() is None

    def kill(self) -> None:
        """Kill the process as a crash would; its children continue."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> int:
        """Send SIGTERM and return the exit code. Kills the process if it takes too long."""
        if self.running:
            self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            raise TooLate(f"{self.name} did not end within {END_SECONDS:g} s of SIGTERM: {self.tail()}") from None

    def tail(self, lines: int = 20) -> str:
        """Return the end of its output."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
