"""Processes of supervised services: run, see them end at once, end them with all their children (A3, A5, A9, A11).

I/O only: it decides nothing about states. Processes have a session of their own and are not tied to the agent, because
services outlive it.
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
"""In the environment of every service: the agent's state folder and the service's id, so that its remains are found."""
KILL_SECONDS: Final = 5.0
"""After KILL, group and port must be free within this time."""
_POLL: Final = 0.02


class LaunchError(Exception):
    """The process could not be run; the message says why."""


class StuckError(Exception):
    """Process group or port stayed although KILL was sent; the message says which."""


@dataclass(frozen=True, slots=True)
class Command:
    """What to run. `log` gets standard output and error, appended. `mark`: see MARK."""

    argv: tuple[str, ...]
    env: dict[str, str]
    working_dir: Path
    log: Path
    port: int | None
    ownership_tag: str


class Process:
    """A process group that this agent, or an earlier one, started; the leader's pid is the group's."""

    def __init__(
        self, pid: int, started: int, port: int | None, child: "subprocess.Popen[bytes] | None" = None
    ) -> None:
        self.pid = pid
        self.started = started
        """Start time in ticks since boot, which with the pid identifies the process."""
        self._port = port
        self._child = child
        self._ended = False
        """The whole group."""
        self._exit: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._watch()

    @classmethod
    async def launch(cls, command: Command) -> "Process":
        """Run the command. Raises LaunchError, leaving nothing, if the port is taken or it cannot be run."""
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
        """The process that an earlier agent recorded, if it still is the same one."""
        return cls(pid, started, port) if _start_ticks(pid) == started and started >= 0 else None

    async def exited(self) -> str:
        """Wait until the leader has ended; how, in words. Seen at once, by a pidfd."""
        return await asyncio.shield(self._exit)

    async def end(self, grace: float) -> None:
        """TERM to the group, KILL after `grace` seconds (at once when 0), until group and port are free.

        Raises StuckError when they are not free 5 s after KILL.
        """
        if grace > 0:
            self._signal(signal.SIGTERM)
            if await self._free_within(grace):
                return
        self._signal(signal.SIGKILL)
        if not await self._free_within(KILL_SECONDS):
            raise StuckError(self._port_owner())

    async def free(self) -> None:
        """Wait, for ever if need be, until group and port are free."""
        # Nothing tells when a group's last member or a port's listener goes: it must be looked at.
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
        """Whether the group has a member. Once it has none, its number may become a stranger's."""
        if not self._ended:
            self._ended = self._exit.done() and not _group_members(self.pid)
        return not self._ended

    def _port_owner(self) -> str:
        """What is in the way, for people. It reads about all processes: not to be asked often."""
        if self._is_alive():
            return f"process group {self.pid} did not end after KILL"
        return f"port {self._port} is still in use by {ports.owner(self._port or 0)}"


@dataclass(frozen=True, slots=True, order=True)
class ProcessGroup:
    """A process group that an earlier agent started. `started`: -1 if its leader has ended and only others live."""

    started: int
    leader: int
    digest: str
    """As it was run (see `service.recipe`)."""


def ownership_tag(folder: Path, service: str, recipe: str) -> str:
    """What marks the processes of a service of the agent with this state folder."""
    return f"{folder}:{service}:{recipe}"


def remaining_groups(folder: Path) -> dict[str, list[ProcessGroup]]:
    """What earlier agents of this state folder started and still runs: groups by service id, oldest first."""
    found: dict[str, dict[int, ProcessGroup]] = {}
    prefix = f"{OWNERSHIP_VARIABLE}={folder}:".encode()
    for pid in psutil.pids():
        with suppress(OSError):
            group, words = os.getpgid(pid), Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            marks = [word.removeprefix(prefix).decode(errors="replace") for word in words if word.startswith(prefix)]
            if marks and group != os.getpgid(0):
                service, _, recipe = marks[0].partition(":")
                found.setdefault(service, {})[group] = ProcessGroup(_start_ticks(group), group, recipe)
    return {service: sorted(groups.values()) for service, groups in found.items()}


def _open_log(command: Command) -> BinaryIO:
    try:
        return command.log.open("ab")
    except OSError as error:
        # A disk that takes no log keeps no service from running.
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
    """When the process started, in clock ticks since boot: with the pid, its identity; no clock change moves it.

    -1 if it does not live: nobody may have reaped it yet.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return -1
    fields = stat.rpartition(")")[2].split()
    return -1 if fields[0] in "ZX" else int(fields[19])


def _group_members(group: int) -> bool:
    """Whether the process group has a living member; zombies, which nobody may reap in a container, do not live."""
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
