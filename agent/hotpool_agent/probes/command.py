"""Commands with a time limit, such as exec probes: run in a thread each, output bounded, process group killed. I/O.

A start may block on a hung file system, and a process in uninterruptible sleep does not even end by SIGKILL. Both take
one thread, which is abandoned, and no second command of the same key is started meanwhile.
"""

import asyncio
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final, cast

from hotpool_agent.blocking import SingleFlightRunner

_CHUNK: Final = 65536
_FIRST_PAUSE: Final = 0.001
_LONGEST_PAUSE: Final = 0.02
_KILLED_PAUSE: Final = 1.0


@dataclass(frozen=True, slots=True)
class Command:
    """Program to run. `env`: variables in addition to the agent's own. `output_bytes`: more is read, but not kept."""

    argv: Sequence[str]
    folder: Path
    env: Mapping[str, str] = field(default_factory=dict)
    output_bytes: int = 4096


@dataclass(frozen=True, slots=True)
class Outcome:
    """End of a command. `failure`: None after exit code 0."""

    failure: str | None
    output: bytes = b""
    """Beginning of its standard output and error."""


class CommandRunner:
    """Runs commands, one at a time for each key."""

    def __init__(self) -> None:
        self._runner = SingleFlightRunner()
        self._runs: set[_Run] = set()

    async def run(self, key: Hashable, command: Command, seconds: float) -> Outcome:
        """Return the outcome, after at most `seconds`. Cancellation kills the command."""
        run = _Run(command, seconds)

        def execute() -> Outcome:
            self._runs.add(run)
            try:
                return run.execute()
            finally:
                self._runs.discard(run)

        try:
            async with asyncio.timeout(seconds):
                return await self._runner.run(key, execute)
        except TimeoutError:
            # The thread and this task reach the limit in either order.
            return Outcome(_overdue(seconds))
        finally:
            run.kill()

    def close(self) -> None:
        """Kill all running commands."""
        for run in list(self._runs):
            run.kill()


class _Run:
    """One run of a command."""

    def __init__(self, command: Command, seconds: float) -> None:
        self._command = command
        self._seconds = seconds
        self._deadline = time.monotonic() + seconds
        self._overdue = False
        """True if the time limit ended the command."""
        self._lock = threading.Lock()
        self._pid: int | None = None
        """Process group to kill; None before the start and from the moment at which its id may be reused."""
        self._killed = False

    def execute(self) -> Outcome:
        """Run the command to its end, or to the time limit."""
        try:
            child = subprocess.Popen(  # noqa: S603 - running what the catalogue says is the job
                self._command.argv,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                cwd=self._command.folder,
                env={**os.environ, **self._command.env},
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            return Outcome(f"cannot run: {error.strerror if isinstance(error, OSError) else error}")
        with self._lock:
            self._pid = child.pid
            killed = self._killed
        if killed:
            self.kill()
        output = bytearray()
        with cast("IO[bytes]", child.stdout) as pipe:
            code = self._wait(child.pid, pipe, output)
        # Nothing of the command's group may remain. The unreaped leader keeps the group's id from being reused.
        self.kill()
        with self._lock:
            self._pid = None
        child.wait()
        return Outcome(_overdue(self._seconds) if self._overdue else _failure(code), bytes(output))

    def kill(self) -> None:
        """Kill the command's process group. If the command has not started yet, it is killed then."""
        with self._lock:
            self._killed = True
            if self._pid is not None:
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(self._pid, signal.SIGKILL)

    def _wait(self, pid: int, pipe: IO[bytes], output: bytearray) -> int | None:
        """Read until the process ends, and return its exit code, without reaping it. Kill it at the time limit."""
        os.set_blocking(pipe.fileno(), False)
        poller, pause = select.poll(), _FIRST_PAUSE
        poller.register(pipe, select.POLLIN)
        while True:
            ended, code = _exit_code(pid)
            if not self._read(pipe, output):
                poller = select.poll()  # The command has closed its output: nothing but its end can come.
            if ended:
                return code
            if not self._overdue and time.monotonic() >= self._deadline:
                self._overdue = True
                self.kill()
            poller.poll(pause * 1000)
            pause = min(2 * pause, _KILLED_PAUSE if self._overdue else _LONGEST_PAUSE)

    def _read(self, pipe: IO[bytes], output: bytearray) -> bool:
        """Read what is there, and keep its beginning. Return False at the end of the output."""
        try:
            data = os.read(pipe.fileno(), _CHUNK)
        except BlockingIOError:
            return True
        output += data[: self._command.output_bytes - len(output)]
        return bool(data)


def _exit_code(pid: int) -> tuple[bool, int | None]:
    """Return whether the child has ended, and its exit code: negative for a signal, None if another party reaped it."""
    try:
        status = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return True, None
    if status is None:
        return False, None
    return True, status.si_status if status.si_code == os.CLD_EXITED else -status.si_status


def _failure(code: int | None) -> str | None:
    if code is None:
        return "unknown exit code"
    if code >= 0:
        return f"exit code {code}" if code else None
    return killed_by(-code)


def killed_by(number: int) -> str:
    """Return the end of a process by a signal, as text."""
    try:
        return f"killed by {signal.Signals(number).name}"
    except ValueError:
        return f"killed by signal {number}"


def _overdue(seconds: float) -> str:
    return f"no end in {seconds:g} s"
