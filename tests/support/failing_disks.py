"""Disks that fail under a running agent: real errors, for this agent alone."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

import psutil

from localfleet.process import wait_for


class Disk(Protocol):
    """A failure of a disk. `inside`: the words of the program that starts the agent; see `agent_process`."""

    inside: Sequence[str]
    reason: str
    """The system's error message."""

    def break_writes(self, pid: int, folder: Path) -> None:
        """Let the process fail to write any file in the folder from now on."""

    def repair(self, pid: int, folder: Path) -> None:
        """Let it write again."""


class Full:
    """A full disk: every write fails by the limit of the size of files, which needs no privilege."""

    inside: Sequence[str] = ()
    reason = "File too large"

    def break_writes(self, pid: int, folder: Path) -> None:  # noqa: ARG002 - it affects all folders
        """Lower the limit."""
        psutil.Process(pid).rlimit(psutil.RLIMIT_FSIZE, (0, psutil.RLIM_INFINITY))

    def repair(self, pid: int, folder: Path) -> None:  # noqa: ARG002
        """Raise the limit."""
        psutil.Process(pid).rlimit(psutil.RLIMIT_FSIZE, (psutil.RLIM_INFINITY, psutil.RLIM_INFINITY))


class ReadOnly:
    """A read-only folder: for root, whom permissions do not stop, a mount in the agent's own namespace."""

    def __init__(self) -> None:
        self._root = os.geteuid() == 0
        self.inside: Sequence[str] = ("unshare", "--mount") if self._root else ()
        self.reason = "Read-only file system" if self._root else "Permission denied"

    def break_writes(self, pid: int, folder: Path) -> None:
        """Mount the folder on itself, read-only; or remove the permission to write."""
        if self._root:
            wait_for("the folder is read-only", lambda: self._mount(pid, str(folder)), 30)
        else:
            folder.chmod(0o500)

    def repair(self, pid: int, folder: Path) -> None:
        """Unmount it; or add the permission to write."""
        if self._root:
            self._run(pid, "umount", "--lazy", str(folder))  # The agent may just read a file there.
        else:
            folder.chmod(0o700)

    def _mount(self, pid: int, folder: str) -> bool:
        """Mount a folder. Return False if a file was opened for writing in it before it became read-only."""
        self._run(pid, "mount", "--bind", folder, folder)
        if self._run(pid, "mount", "-o", "remount,bind,ro", folder, check=False) == 0:
            return True
        self._run(pid, "umount", "--lazy", folder)
        return False

    @staticmethod
    def _run(pid: int, *command: str, check: bool = True) -> int:
        return subprocess.run(["nsenter", f"--mount=/proc/{pid}/ns/mnt", *command], check=check).returncode  # noqa: S607


DISKS: Final[dict[str, type[Disk]]] = {"full": Full, "read-only": ReadOnly}
