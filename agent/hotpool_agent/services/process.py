"""Processes of supervised services: launch, immediate detection of exit, end of all that belongs (A3, A5, A9, A11).

I/O only: it decides nothing about states. Processes have a session of their own and are independent of the agent,
because services outlive it.
"""

import asyncio
import errno
import os
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from hotpool_agent.probes.command import killed_by
from hotpool_agent.services import child_reaper, members, ports, process_table
from hotpool_agent.services.launch import KILL_SECONDS, Command, Launch, LaunchError, StuckError
from hotpool_agent.services.members import Members
from hotpool_agent.services.process_table import ProcessEntry, owner_of

_POLL: Final = 0.02
_SLOW_POLL: Final = 0.25
_NO_PIDFD: Final = {errno.ENOSYS, errno.EPERM}
"""Errors of kernels before 5.3, and of sandboxes that do not know the call."""


class Process:
    """A service's process that this agent, or an earlier one, started, and all that belongs to it.

    `owner`: state folder and id of the service, as in its ownership tag. The process is the leader of its session, or
    the oldest of those that a leader left.
    """

    def __init__(
        self,
        pid: int,
        started: int,
        port: int | None,
        owner: str = "",
        child: subprocess.Popen[bytes] | None = None,
    ) -> None:
        self.pid = pid
        self.started = started
        """Start time in clock ticks since boot; together with the pid it identifies the process."""
        self.members = Members(owner, (pid, started))
        self.output_start = 0
        """Size of the log file when it was started."""
        self._port = port
        self._child = child
        self._ended = False
        """True once no member is left. The ids of an ended group may be reused, so the end is final."""
        self._exit: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._watch()

    @classmethod
    async def launch(cls, command: Command) -> "Process":
        """Start the command. Raises LaunchError, and leaves no process, if the port is in use or the start fails.

        Raises LaunchHungError if the start takes too long.
        """
        if command.port is not None and ports.is_listening(command.port):
            raise LaunchError(f"port {command.port} is already in use by {ports.owner(command.port)}")
        launch = Launch(command)
        child = await launch.run()
        child_reaper.leave(child.pid)
        try:
            entry = process_table.read_entry(child.pid)
            process = cls(
                child.pid, entry.started if entry else -1, command.port, owner_of(command.ownership_tag), child
            )
        except OSError as error:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            child_reaper.take(child.pid)
            raise LaunchError(f"cannot watch {command.argv[0]!r}: {error.strerror}") from error
        process.output_start = launch.output_start
        return process

    @classmethod
    def find(cls, pid: int, started: int, port: int | None, owner: str = "") -> "Process | None":
        """Return the process that an earlier agent recorded. None if it has ended or the pid was reused."""
        return cls(pid, started, port, owner) if process_table.is_alive((pid, started)) else None

    async def exited(self) -> str:
        """Wait until the process has ended; return its exit code or signal as text. A pidfd detects the end at once."""
        return await asyncio.shield(self._exit)

    async def end(self, grace: float) -> None:
        """Send TERM to all members, and KILL after `grace` seconds (at once if 0). Return when none is left.

        Raises StuckError if a member lives, or the port is in use, 5 s after KILL.
        """
        if grace > 0:
            await self._signal(signal.SIGTERM)
            if await self._free_within(grace, None):
                return
        await self._signal(signal.SIGKILL)
        if not await self._free_within(KILL_SECONDS, signal.SIGKILL):
            raise StuckError(await self._remains())

    async def free(self) -> None:
        """Wait, without a time-out, until all members have ended and nothing listens on the port."""
        # The kernel sends no notification when the last member of a group ends or a port is closed.
        while not await self._is_free(signal.SIGKILL):  # noqa: ASYNC110 - as said
            await asyncio.sleep(KILL_SECONDS / 10)

    def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            handle = os.pidfd_open(self.pid)
        except ProcessLookupError:
            self._exit.set_result("ended")
            return
        except OSError as error:
            if error.errno not in _NO_PIDFD:
                raise
            _poll(lambda: process_table.is_alive((self.pid, self.started)), self._on_exit)
            return

        def ended() -> None:
            loop.remove_reader(handle)
            os.close(handle)
            self._on_exit()

        loop.add_reader(handle, ended)

    def _on_exit(self) -> None:
        # The zombie stays until its group was searched: meanwhile no other process can get its pid.
        self._exit.set_result(_exit_text(self.pid) if self._child else "ended")

    def _reap(self) -> None:
        if self._child and self._exit.done() and self._child.returncode is None:
            self._child.wait()
            child_reaper.take(self.pid)

    async def _signal(self, number: signal.Signals) -> None:
        if not self._ended:
            with suppress(TimeoutError):
                self.members.send(number, await self.members.search())

    async def _free_within(self, seconds: float, again: signal.Signals | None) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self.exited()
                pause = _POLL
                while not await self._is_free(again):
                    await asyncio.sleep(pause)
                    pause = min(pause * 1.5, _SLOW_POLL)
        except TimeoutError:
            return await self._is_free(again)
        return True

    async def _is_free(self, again: signal.Signals | None) -> bool:
        """Return True if no member lives and nothing listens on the port. `again`: signal to members found now."""
        if not self._ended:
            if not self._exit.done() or self.members.any_alive():
                return False
            try:
                left = await self.members.search()
            except TimeoutError:
                return False
            if left:
                if again:
                    self.members.send(again, left)
                return False
            self._ended = True
            self._reap()
            self.members.close()
        return self._port is None or not ports.is_listening(self._port)

    async def _remains(self) -> str:
        """Return as text what still lives or listens. Expensive, because it reads about all processes."""
        left: list[ProcessEntry] = []
        if not self._ended:
            try:
                left = await self.members.search()
            except TimeoutError:
                return "the processes of this machine cannot be read"
        if left:
            return f"still alive after KILL: {members.describe(left)}"
        return f"port {self._port} is still in use by {ports.owner(self._port or 0)}"


def _exit_text(pid: int) -> str:
    """Return the exit code or signal of a child as text, without reaping it."""
    result = None
    with suppress(ChildProcessError):
        result = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG)
    if result is None:
        return "ended"
    if result.si_code == os.CLD_EXITED:
        return f"exited with code {result.si_status}"
    return killed_by(result.si_status)


def _poll(condition: Callable[[], bool], on_end: Callable[[], None]) -> None:
    """Call `on_end` once the condition does not hold."""
    if condition():
        asyncio.get_running_loop().call_later(_SLOW_POLL, _poll, condition, on_end)
    else:
        on_end()
