"""Start of a service's program, which may hang as long as a file system does (requirements A3, A12). I/O.

Each start runs in a thread of its own with a time limit, so that other services and the agent go on.
"""

import asyncio
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from stat import S_ISREG
from typing import Any, BinaryIO, Final

import structlog

from hotpool_agent.blocking import SingleFlightRunner, run_blocking
from hotpool_agent.services import cgroups
from hotpool_agent.services.cgroups import Cgroup
from hotpool_agent.services.process_table import OWNERSHIP_VARIABLE, owner_of

_LOG: Final = structlog.get_logger(__name__)
LAUNCH_SECONDS: Final = 10.0
"""Longest time until the program runs. It contains access to the working directory and the program file."""
KILL_SECONDS: Final = 5.0
"""Seconds after KILL in which all processes must end and the port must become free."""
_POLL: Final = 0.25
LOG_SECONDS: Final = 5.0
"""Longest time to open the log file."""
_RUNNER: Final = SingleFlightRunner()
"""Runner of accesses to one path: while one hangs, retries wait for it and add no thread."""

# With vfork the interpreter stands still until the child has executed its program: one file system that hangs would
# freeze the whole agent.
subprocess._USE_VFORK = False  # type: ignore[misc]  # noqa: SLF001 - documented as the way to disable it


class LaunchError(Exception):
    """The process could not be started; the message says why."""


class StuckError(Exception):
    """Processes still live, or the port is still in use, after KILL; the message names them."""


class LaunchHungError(Exception):
    """The program did not begin in time. `launch`: the attempt, which must be ended."""

    def __init__(self, launch: "Launch", message: str) -> None:
        super().__init__(message)
        self.launch = launch


@dataclass(frozen=True, slots=True)
class Command:
    """Program to run. Standard output and error are appended to `log`. `ownership_tag`: see OWNERSHIP_VARIABLE."""

    argv: tuple[str, ...]
    env: dict[str, str]
    working_dir: Path
    log: Path
    port: int | None
    ownership_tag: str


class _Child(subprocess.Popen[bytes]):
    """Child that is known to the attempt before its program begins."""

    def __init__(self, attempt: "Launch", *arguments: Any, **options: Any) -> None:
        attempt.child = self
        super().__init__(*arguments, **options)


@dataclass(slots=True)
class Launch:
    """One attempt to start a command."""

    command: Command
    child: _Child | None = None
    """Set before its process exists; `pid` is missing until then."""
    abandoned: bool = False
    output_start: int = 0
    """Size of the log file before the start."""
    ended: bool = field(default=False, init=False)
    """True once the thread of the attempt has ended; if it was abandoned, no process is left then."""

    async def run(self) -> "subprocess.Popen[bytes]":
        """Start the program. Raises LaunchError, and leaves no process, or LaunchHungError after LAUNCH_SECONDS."""
        await _check_working_dir(self.command.working_dir)
        log, self.output_start = await _open_log(self.command.log)
        try:
            return await run_blocking(partial(self._start, log), LAUNCH_SECONDS)
        except asyncio.CancelledError:
            # The agent ends. The next one could not find a process that has not begun its program.
            self._abandon()
            raise
        except TimeoutError as error:
            self._abandon()
            raise LaunchHungError(
                self,
                f"cannot run {self.command.argv[0]!r}: not begun after {LAUNCH_SECONDS:g} s; "
                "a file system may not respond",
            ) from error

    @property
    def pid(self) -> int:
        """Pid of the process, or 0 before it exists."""
        return getattr(self.child, "pid", 0)

    async def end(self, grace: float) -> None:
        """Kill the process that has not begun its program. Raises StuckError if its start still hangs 5 s later."""
        del grace
        try:
            async with asyncio.timeout(KILL_SECONDS):
                await self.free()
        except TimeoutError as error:
            process = f"process {self.pid}" if self.pid else "the start"
            raise StuckError(f"{process} hangs: a file system does not respond") from error

    async def free(self) -> None:
        """Wait, without a time-out, until the process has ended."""
        while not self.ended:
            self._kill()
            await asyncio.sleep(_POLL)

    def _kill(self) -> None:
        # The thread that waits for the process ends then.
        if self.pid and not self.ended:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(self.pid, signal.SIGKILL)

    def _abandon(self) -> None:
        self.abandoned = True
        self._kill()

    def _start(self, log: BinaryIO) -> "subprocess.Popen[bytes]":
        cgroup, child = cgroups.of_service(owner_of(self.command.ownership_tag)), None
        try:
            with log, _opened(cgroup) as descriptor:
                child = _popen(self, log, descriptor)
            if self.abandoned:
                child.kill()
                child.wait()
            return child
        finally:
            # Never that of a program that runs: it may have cgroups of its own below, empty at this moment.
            if cgroup and (child is None or self.abandoned):
                cgroup.remove()
            self.ended = True


@contextmanager
def _opened(cgroup: Cgroup | None) -> Iterator[int | None]:
    """Provide an open descriptor of the cgroup, or None if there cannot be one."""
    descriptor = cgroup.open() if cgroup else None
    try:
        yield descriptor
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _popen(attempt: Launch, log: BinaryIO, cgroup: int | None) -> _Child:
    command = attempt.command
    try:
        return _Child(
            attempt,
            command.argv,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=command.working_dir,
            env={**os.environ, **command.env, OWNERSHIP_VARIABLE: command.ownership_tag},
            start_new_session=True,
            # The child must be in its cgroup before it creates others. Python code between fork and exec may deadlock
            # with other threads' locks, so it is one system call, and LAUNCH_SECONDS ends it.
            preexec_fn=None if cgroup is None else partial(cgroups.enter, cgroup),
        )
    except (OSError, ValueError) as error:
        reason = f"{error.strerror}: {error.filename}" if isinstance(error, OSError) else str(error)
        raise LaunchError(f"cannot run {command.argv[0]!r}: {reason}") from error


async def _check_working_dir(path: Path) -> None:
    """Raise LaunchError if the directory does not respond, before a child exists that would hang in it.

    Until it is in its directory, the child of one start has the pipes of others open, so they would wait for it.
    """
    try:
        async with asyncio.timeout(LAUNCH_SECONDS):
            await _RUNNER.run(path, partial(os.stat, path))
    except TimeoutError as error:
        raise LaunchError(f"working directory {path}: no response in {LAUNCH_SECONDS:g} s") from error
    except OSError:
        return  # The start fails as well, and says why.


async def _open_log(path: Path) -> tuple[BinaryIO, int]:
    """Open the log file; return it, and its size. A service must run even if that fails or hangs."""
    try:
        async with asyncio.timeout(LOG_SECONDS):
            return await _RUNNER.run(path, partial(_open, path))
    except TimeoutError:
        reason = f"not opened in {LOG_SECONDS:g} s"
    except OSError as error:
        reason = error.strerror or str(error)
    _LOG.warning("running without a log", log=str(path), error=reason)
    return os.fdopen(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), "wb"), 0


def _open(path: Path) -> tuple[BinaryIO, int]:
    # Without O_NONBLOCK a named pipe would block until a program reads it.
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    stat = os.fstat(handle)
    if not S_ISREG(stat.st_mode):
        os.close(handle)
        raise OSError(0, "no regular file", str(path))
    os.set_blocking(handle, True)
    return os.fdopen(handle, "ab"), stat.st_size
