"""Table of all processes of this machine, and search for those that belong together (requirement A9). Linux.

`read_entries` and `Marks` do I/O in /proc. A process's `stat` can always be read; its `environ` may block as long as
the process hangs in the kernel.
"""

import os
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

Key = tuple[int, int]
"""Pid and start time, which together identify a process of this boot."""
OWNERSHIP_VARIABLE: Final = "HOTPOOL_AGENT_SERVICE"
"""Environment variable of every service that holds its ownership tag, by which a later agent finds its processes."""
_PREFIX: Final = f"{OWNERSHIP_VARIABLE}=".encode()
_STAT_BYTES: Final = 2048
_DEAD: Final = ("Z", "X")
_EXEC_SECONDS: Final = 0.5
_EXEC_PAUSE: Final = 0.001
"""First pause, in seconds; each is twice as long as the one before."""


def owner(folder: Path, service: str) -> str:
    """Return the owner of a service's processes, the first part of their ownership tag: state folder and service id."""
    return f"{folder}:{service}"


def ownership_tag(owner: str, digest: str) -> str:
    """Return the tag of a service's processes: their owner, and the service's launch digest."""
    return f"{owner}:{digest}"


def owner_of(tag: str) -> str:
    """Return the owner in an ownership tag."""
    return tag.rpartition(":")[0]


class ProcessEntry(NamedTuple):
    """One process. `started`: in clock ticks since boot, which no clock change alters."""

    pid: int
    parent: int
    group: int
    session: int
    started: int
    name: str
    alive: bool
    """False for a zombie: it has ended, but its parent has not read its exit status."""

    @property
    def key(self) -> Key:
        """Identity of the process."""
        return self.pid, self.started


def read_entries() -> list[ProcessEntry]:
    """Return all processes, the agent itself excepted."""
    own = os.getpid()
    pids = (int(name) for name in os.listdir("/proc") if name.isdecimal())  # noqa: PTH208 - a third of the time
    return [entry for pid in pids if pid != own and (entry := read_entry(pid))]


def read_entry(pid: int) -> ProcessEntry | None:
    """Return one process, or None if there is none with this pid."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:  # noqa: PTH123 - half the time of a Path
            stat = file.read(_STAT_BYTES).decode(errors="replace")
    except OSError:
        return None
    head, _, rest = stat.rpartition(")")
    state, parent, group, session, *fields = rest.split()
    # The main thread of a process may end before the others, and is then a zombie as well.
    alive = state not in _DEAD or int(fields[13]) > 1
    return ProcessEntry(
        pid, int(parent), int(group), int(session), int(fields[15]), head.partition("(")[2], alive=alive
    )


def is_alive(key: Key) -> bool:
    """Return True if the process has not ended and is no zombie."""
    entry = read_entry(key[0])
    return entry is not None and entry.alive and entry.key == key


class ProcessTable:
    """All processes of the machine at one moment. The search for those of one service costs only their number."""

    def __init__(self, entries: Iterable[ProcessEntry], tags: Mapping[int, str]) -> None:
        """`tags`: pid → ownership tag of the processes that have one."""
        self.by_pid = {entry.pid: entry for entry in entries}
        self.tags = tags
        self._of_owner: defaultdict[str, list[int]] = defaultdict(list)
        for pid, tag in tags.items():
            self._of_owner[owner_of(tag)].append(pid)
        self._under: defaultdict[int, list[ProcessEntry]] = defaultdict(list)
        """Number → processes that have it as their parent, group or session."""
        for entry in self.by_pid.values():
            for number in {entry.parent, entry.group, entry.session}:
                self._under[number].append(entry)

    def of_owner(self, owner: str) -> list[int]:
        """Return the pids of the processes whose tag has this owner; none for an empty one."""
        return self._of_owner.get(owner, []) if owner else []

    def related(self, pids: Iterable[int], ids: Iterable[int] = ()) -> list[ProcessEntry]:
        """Return these processes, their descendants, and all processes of their groups and sessions.

        `ids`: further numbers of groups, sessions and parents. A group or session counts if the process that created it
        belongs, so a shell from which a member was started by hand does not.
        """
        found = {pid: self.by_pid[pid] for pid in pids if pid in self.by_pid}
        roots = [*found, *ids]
        while roots:
            for entry in self._under.get(roots.pop(), ()):
                if entry.pid not in found:
                    found[entry.pid] = entry
                    roots.append(entry.pid)
        return list(found.values())


class Marks:
    """Ownership tags of processes, read once for each: a process inherits its tag when it is created."""

    def __init__(self) -> None:
        self._known: dict[Key, str] = {}
        self._reading: set[Key] = set()
        """Processes whose environment is being read; it stays here if the read hangs, and is not tried again."""

    def read(self, table: Collection[ProcessEntry]) -> dict[int, str]:
        """Return pid → tag of the marked processes. May block once for each process that hangs."""
        found = {entry.key: self._tag(entry) for entry in table if entry.alive}
        pause = _EXEC_PAUSE
        while pause < _EXEC_SECONDS and (empty := [e for e in table if e.key in found and found[e.key] is None]):
            time.sleep(pause)
            found.update((entry.key, self._tag(entry)) for entry in empty)
            pause *= 2
        tags = {key: tag or "" for key, tag in found.items()}
        # A child of the agent gets its own environment only when its program begins.
        own = os.getpid()
        unsettled = {entry.key for entry in table if entry.parent == own}
        self._known = {key: tag for key, tag in tags.items() if tag or key not in unsettled}
        return {pid: tag for (pid, _), tag in tags.items() if tag}

    def _tag(self, entry: ProcessEntry) -> str | None:
        """Return the tag; empty: it has none; None: its environment is empty."""
        if entry.key in self._known:
            return self._known[entry.key]
        if entry.key in self._reading:
            return ""
        self._reading.add(entry.key)
        # Without a group: a thread of the kernel, which has no environment, or a process from outside the container.
        tag = _read_tag(entry.pid) if entry.group else ""
        self._reading.discard(entry.key)
        return tag


def _read_tag(pid: int) -> str | None:
    """Return the tag. None: the environment is empty, as in the moment in which a process replaces its program."""
    with suppress(OSError):
        environment = Path(f"/proc/{pid}/environ").read_bytes()
        for word in environment.split(b"\0"):
            if word.startswith(_PREFIX):
                return word.removeprefix(_PREFIX).decode(errors="replace")
        return "" if environment else None
    return ""
