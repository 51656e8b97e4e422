"""All processes of one service (requirement A9): I/O.

A process belongs to a service by its group or session, by the ownership tag in its environment, by descent, which the
agent remembers, or by the service's cgroup.
"""

import asyncio
import os
import signal
from collections.abc import Iterable
from contextlib import suppress
from typing import Final
from weakref import WeakKeyDictionary

from hotpool_agent.blocking import run_blocking
from hotpool_agent.services import cgroups, process_table
from hotpool_agent.services.process_table import Key, Marks, ProcessEntry, ProcessTable

_READ_SECONDS: Final = 2.0
_ATTEMPTS: Final = 3
_NAMED: Final = 5
_MARKS: Final = Marks()


class Members:
    """The processes of a service. `owner`: its state folder and id, separated by a colon. `first`: a known process."""

    def __init__(self, owner: str, first: Key) -> None:
        self._owner = owner
        self._known: frozenset[Key] = frozenset({first})
        self._ids: frozenset[int] = frozenset({first[0]})
        """Pids of present and former members. A pid is not reused while it names a group or session."""
        self._cgroup = cgroups.of_service(owner)

    def any_alive(self) -> bool:
        """Return True if a process of the last search is alive. Quick, and no proof that none is left."""
        return any(process_table.is_alive(key) for key in self._known)

    async def search(self) -> list[ProcessEntry]:
        """Search all processes of the machine for living members. Raises TimeoutError if they cannot be read."""
        return self.update(await read_all())

    def update(self, table: ProcessTable) -> list[ProcessEntry]:
        """Return the living members among these processes, and remember all that belong."""
        in_cgroup = self._cgroup.pids() if self._cgroup else set()
        present = [entry for pid, _ in self._known if (entry := table.by_pid.get(pid)) and entry.key in self._known]
        ids = {entry.pid for entry in present}
        ids |= {number for entry in present for number in (entry.group, entry.session) if number in self._ids}
        found = table.related({*ids, *in_cgroup, *table.of_owner(self._owner)}, ids)
        self._known = frozenset(entry.key for entry in found)
        self._ids = frozenset(ids | {entry.pid for entry in found})
        return [entry for entry in found if entry.alive]

    def send(self, number: signal.Signals, members: Iterable[ProcessEntry]) -> None:
        """Send a signal to the members, and KILL to the whole cgroup as well."""
        if number == signal.SIGKILL and self._cgroup:
            self._cgroup.kill()
        for entry in members:
            _send(entry.key, number)

    def close(self) -> None:
        """Remove the service's empty cgroup."""
        if self._cgroup:
            self._cgroup.remove()


def describe(members: Iterable[ProcessEntry]) -> str:
    """Return pids and names as text, at most five."""
    names = [f"{entry.pid} ({entry.name})" for entry in sorted(members)]
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


async def find_marked(folder: str) -> dict[str, list[tuple[ProcessEntry, str]]]:
    """Return the living processes that agents of this state folder started: service id → (process, launch digest).

    Oldest first. Raises TimeoutError if they cannot be read.
    """
    table = await read_all()
    found: dict[str, list[tuple[ProcessEntry, str]]] = {}
    marked = (table.by_pid[pid] for pid in table.tags)
    for entry in sorted(marked, key=lambda entry: (entry.started, entry.pid)):
        owner, _, digest = table.tags[entry.pid].rpartition(":")
        prefix, _, service = owner.rpartition(":")
        if prefix == folder and entry.group != os.getpgid(0):
            found.setdefault(service, []).append((entry, digest))
    return found


async def read_all() -> ProcessTable:
    """Read all processes. An environment that cannot be read in 2 s is left out. Raises TimeoutError."""
    return await _READERS.setdefault(asyncio.get_running_loop(), _Reader()).read()


class _Reader:
    """Reads that begin after their request, each shared by all that wait: many services may end at the same time."""

    def __init__(self) -> None:
        self._running: asyncio.Task[ProcessTable] | None = None
        self._next: asyncio.Task[ProcessTable] | None = None

    async def read(self) -> ProcessTable:
        """Return the next reading."""
        if self._next is None:
            self._next = asyncio.create_task(self._read_after(self._running))
        return await asyncio.shield(self._next)

    async def _read_after(self, before: asyncio.Task[ProcessTable] | None) -> ProcessTable:
        if before:
            await asyncio.wait({before})
        self._running, self._next = self._next, None
        for _ in range(_ATTEMPTS - 1):
            with suppress(OSError):  # Also TimeoutError.
                return await run_blocking(_read, _READ_SECONDS)
        try:
            return await run_blocking(_read, _READ_SECONDS)
        except OSError as error:  # No file or thread is free.
            raise TimeoutError(str(error)) from error


_READERS: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, _Reader]] = WeakKeyDictionary()


def _read() -> ProcessTable:
    entries = process_table.read_entries()
    return ProcessTable(entries, _MARKS.read(entries))


def _send(key: Key, number: signal.Signals) -> None:
    """Send a signal to exactly this process. No effect if it has ended, or is another user's."""
    with suppress(ProcessLookupError, PermissionError):
        try:
            handle = os.pidfd_open(key[0])
        except OSError:  # No pidfd on kernels before 5.3: a pid that is reused in this moment is not noticed.
            if process_table.is_alive(key):
                os.kill(key[0], number)
            return
        try:
            if process_table.is_alive(key):
                signal.pidfd_send_signal(handle, number)
        finally:
            os.close(handle)
