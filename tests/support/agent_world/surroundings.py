"""Faults of the agent's machine: a file system that hangs, a disk and outputs that cannot be written. Its cgroup."""

import os
import random
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

from tests.support.failing_disks import Disk, Full, ReadOnly
from tests.support.frozen_filesystem import frozen_filesystem
from tests.support.own_cgroup import OwnCgroup, own_cgroup

_PIPE_BYTES: Final = 4096
_HANGS: Final = 24
"""Most hangs of one world."""


class Surroundings:
    """Faults of one machine, until `close`. `folder`: an existing folder; `chance`: chooses among the kinds of faults.

    `missing`: the reasons why some of them cannot happen on this machine.
    """

    def __init__(self, folder: Path, chance: random.Random) -> None:
        self.workers = folder / "workers"
        self.missing: list[str] = []
        self._folder = folder
        self._random = chance
        self._stack = ExitStack()
        self._output = ExitStack()
        """The pipe that is the agent's output."""
        self._broken: tuple[Disk, int, Path] | None = None
        """Disk that cannot be written, pid of the agent, and folder."""
        self.workers.mkdir()
        self.cgroup = self._begin_cgroup()
        # Mounted before any agent: one in a mount namespace of its own does not see later mounts.
        self._frozen = [path for number in range(_HANGS) if (path := self._mount_frozen(folder / f"frozen-{number}"))]
        if not self._frozen:
            self.missing.append("a frozen file system needs root and /dev/fuse")

    def close(self) -> None:
        """Remove mounts, cgroup and pipes."""
        self._output.close()
        self._stack.close()

    def agent_inside(self) -> tuple[str, ...]:
        """Return the words of a program that executes the next agent, with an output that may not be writable."""
        self._output.close()
        words = self.cgroup.inside if self.cgroup else ()
        match self._random.choice(["a file", "a file", "a full disk", "a pipe"]):
            case "a full disk":
                output = "/dev/full"
            case "a pipe":
                output = self._full_pipe()
            case _:
                return words
        return (*words, "sh", "-c", 'exec "$@" >"$0" 2>&1', output)

    def freeze(self) -> Path | None:
        """Return the next file system that hangs; None if there is no other one.

        Each is used once: in one of them, a search that hangs lets others wait unkillably for it.
        """
        return self._frozen.pop() if self._frozen else None

    @property
    def is_disk_broken(self) -> bool:
        """True while the agent's disk cannot be written."""
        return self._broken is not None

    def break_disk(self, agent: int, state: Path) -> str:
        """Let the agent fail to write from now on. Return the kind of failure."""
        kinds: list[type[Disk]] = [Full]
        if self.cgroup:
            # The agent has a mount namespace of its own.
            kinds.append(ReadOnly)
        disk = self._random.choice(kinds)()
        disk.break_writes(agent, state)
        self._broken = disk, agent, state
        return type(disk).__name__

    def repair_disk(self) -> None:
        """Let it write again."""
        if self._broken:
            disk, agent, state = self._broken
            disk.repair(agent, state)
            self._broken = None

    def spoil_log(self, log: Path) -> str:
        """Replace the log file of a service: its next process cannot write it. Return what it is now."""
        kind = self._random.choice(["gone", "full", "a pipe", "a folder", "frozen"])
        frozen = self.freeze() if kind == "frozen" else None
        while True:
            if not log.is_symlink() and log.is_dir():
                log.rmdir()
            else:
                log.unlink(missing_ok=True)
            with suppress(FileExistsError):  # The agent has just created it again.
                self._create_log(log, kind, frozen)
                return kind

    @staticmethod
    def _create_log(log: Path, kind: str, frozen: Path | None) -> None:
        match kind:
            case "full":
                log.symlink_to("/dev/full")
            case "a pipe":
                os.mkfifo(log)
            case "a folder":
                log.mkdir()
            case "frozen" if frozen:
                log.symlink_to(frozen / log.name)

    def _begin_cgroup(self) -> OwnCgroup | None:
        """Create a cgroup in half of the worlds."""
        if self._random.random() < 0.5:
            return None
        cgroup = self._stack.enter_context(own_cgroup(self._folder / "cgroup"))
        if cgroup is None:
            self.missing.append("a cgroup2 mount needs root and a kernel that allows it")
        return cgroup

    def _mount_frozen(self, folder: Path) -> Path | None:
        folder.mkdir()
        return folder if self._stack.enter_context(frozen_filesystem(folder)) else None

    def _full_pipe(self) -> str:
        """Return the path of a pipe that is full already: a write hangs."""
        path = self._folder / "output"
        path.unlink(missing_ok=True)
        os.mkfifo(path)
        reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        self._output.callback(os.close, reader)
        writer = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        with suppress(BlockingIOError):
            while os.write(writer, b"x" * _PIPE_BYTES):
                pass
        os.close(writer)
        return str(path)
