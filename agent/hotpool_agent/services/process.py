"""Processes of supervised services: launch, immediate detection of exit, termination of the group (A3, A5, A9, A11).

I/O only: it decides nothing about states. Processes have a session of their own and are independent of the agent,
because services outlive it.
"""

import asyncio
import os
import signal
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import psutil
import structlog

from hotpool_agent.services import ports

_LOG: Final = structlog.get_logger(__name__)

OWNERSHIP_VARIABLE: Final = "HOTPOOL_AGENT_SERVICE"
"""Environment variable of every service that holds its ownership tag, by which a later agent finds its processes."""
KILL_SECONDS: Final = 5.0
"""Seconds after KILL in which group and port must become free."""
_POLL: Final = 0.02


class LaunchError(Exception):
    """The process could not be started; the message says why."""


class StuckError(Exception):
    """The process group still lives, or the port is still in use, after KILL; the message names it."""


@dataclass(frozen=True, slots=True)
class Command:
    """Program to run. Standard output and error are appended to `log`. `ownership_tag`: see OWNERSHIP_VARIABLE."""

    argv: tuple[str, ...]
    env: dict[str, str]
    working_dir: Path
    log: Path
    port: int | None
    ownership_tag: str


class Process:
    """Process group that this agent, or an earlier one, started; the leader's pid is the group's id."""

    def __init__(
        self, pid: int, started: int, port: int | None, child: "subprocess.Popen[bytes] | None" = None
    ) -> None:
        self.pid = pid
        self.started = started
        """Start time in clock ticks since boot; together with the pid it identifies the process."""
        self._port = port
        self._child = child
        self._ended = False
        """True once the group has no member."""
        self._exit: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._watch()

    @classmethod
    async def launch(cls, command: Command) -> "Process":
        """Start the command. Raises LaunchError, and leaves no process, if the port is in use or the start fails."""
        if command.port is not None and ports.is_listening(command.port):
            raise LaunchError(f"port {command.port} is already in use by {ports.owner(command.port)}")
        child = await asyncio.to_thread(_popen, command)
        try:
            return cls(child.pid, _start_ticks(child.pid), command.port, child)
        except OSError as error:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            raise LaunchError(f"cannot watch {command.argv[0]!r}: {error.strerror}") from error

    @classmethod
    def find(cls, pid: int, started: int, port: int | None) -> "Process | None":
        """Return the process that an earlier agent recorded. None if it has ended or the pid was reused."""
        return cls(pid, started, port) if _start_ticks(pid) == started and started >= 0 else None

    async def exited(self) -> str:
        """Wait until the leader has ended; return its exit code or signal as text. A pidfd detects the end at once."""
        return await asyncio.shield(self._exit)

    async def end(self, grace: float) -> None:
        """Send TERM to the group, and KILL after `grace` seconds (at once if 0). Return when group and port are free.

        Raises StuckError if they are not free 5 s after KILL.
        """
        if grace > 0:
            self._signal(signal.SIGTERM)
            if await self._free_within(grace):
                return
        self._signal(signal.SIGKILL)
        if not await self._free_within(KILL_SECONDS):
            raise StuckError(self._port_owner())

    async def free(self) -> None:
        """Wait, without a time-out, until the process group has ended and nothing listens on the port."""
        # The kernel sends no notification when the last member of a group ends or a port is closed.
        while not self._is_free():  # noqa: ASYNC110
            await asyncio.sleep(KILL_SECONDS / 10)

    def _watch(self) -> None:
        try:
            handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            self._exit.set_result("ended")
            return
        loop = asyncio.get_running_loop()

        def ended() -> None:
            loop.remove_reader(handle)
            os.close(handle)
            self._exit.set_result(self._reap())

        loop.add_reader(handle, ended)

    def _reap(self) -> str:
        if self._child is None:
            return "ended"
        code = self._child.wait()
        if code >= 0:
            return f"exited with code {code}"
        with suppress(ValueError):
            return f"killed by {signal.Signals(-code).name}"
        return f"killed by signal {-code}"

    def _signal(self, number: signal.Signals) -> None:
        if self._is_alive():
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)

    async def _free_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self.exited()
                while not self._is_free():  # noqa: ASYNC110 - as in `free`
                    await asyncio.sleep(_POLL)
        except TimeoutError:
            return self._is_free()
        return True

    def _is_free(self) -> bool:
        return not self._is_alive() and not (self._port is not None and ports.is_listening(self._port))

    def _is_alive(self) -> bool:
        """Return True if the group has a member. The id of an ended group may be reused, so the end is final."""
        if not self._ended:
            self._ended = self._exit.done() and not _group_members(self.pid)
        return not self._ended

    def _port_owner(self) -> str:
        """Return as text what still lives or listens. Expensive, because it reads about all processes."""
        if self._is_alive():
            return f"process group {self.pid} did not end after KILL"
        return f"port {self._port} is still in use by {ports.owner(self._port or 0)}"


@dataclass(frozen=True, slots=True, order=True)
class ProcessGroup:
    """Process group that an earlier agent started. `started`: -1 if its leader has ended and only others live."""

    started: int
    leader: int
    digest: str
    """Launch digest of the service when the group was started."""


def ownership_tag(folder: Path, service: str, digest: str) -> str:
    """Return the tag of a service's processes: the agent's state folder, the service's id and its launch digest."""
    return f"{folder}:{service}:{digest}"


def remaining_groups(folder: Path) -> dict[str, list[ProcessGroup]]:
    """Return the living groups that earlier agents of this state folder started, by service id, oldest first."""
    found: dict[str, dict[int, ProcessGroup]] = {}
    prefix = f"{OWNERSHIP_VARIABLE}={folder}:".encode()
    for pid in psutil.pids():
        with suppress(OSError):
            group, words = os.getpgid(pid), Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            tags = [word.removeprefix(prefix).decode(errors="replace") for word in words if word.startswith(prefix)]
            if tags and group != os.getpgid(0):
                service, _, digest = tags[0].partition(":")
                found.setdefault(service, {})[group] = ProcessGroup(_start_ticks(group), group, digest)
    return {service: sorted(groups.values()) for service, groups in found.items()}


def _open_log(command: Command) -> BinaryIO:
    try:
        return command.log.open("ab")
    except OSError as error:
        # A service must run even if its log file cannot be opened.
        _LOG.warning("running without a log", log=str(command.log), error=error.strerror)
        return Path(os.devnull).open("wb")


def _popen(command: Command) -> "subprocess.Popen[bytes]":
    try:
        with _open_log(command) as log:
            return subprocess.Popen(  # noqa: S603 - running what the catalogue says is the job
                command.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=command.working_dir,
                env={**os.environ, **command.env, OWNERSHIP_VARIABLE: command.ownership_tag},
                start_new_session=True,
            )
    except (OSError, ValueError) as error:
        reason = f"{error.strerror}: {error.filename}" if isinstance(error, OSError) else str(error)
        raise LaunchError(f"cannot run {command.argv[0]!r}: {reason}") from error


def _start_ticks(pid: int) -> int:
    """Return the process's start time in clock ticks since boot, which no clock change alters.

    -1 if it has ended, even if it is still a zombie.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return -1
    fields = stat.rpartition(")")[2].split()
    return -1 if fields[0] in "ZX" else int(fields[19])


def _group_members(group: int) -> bool:
    """Return True if the process group has a living member. Zombies, which may stay in a container, do not count."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    for pid in psutil.pids():
        with suppress(ProcessLookupError, psutil.Error):
            if os.getpgid(pid) == group and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                return True
    return False
