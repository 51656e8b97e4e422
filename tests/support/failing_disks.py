"""Disks that fail under a running agent, for real and for it alone."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Protocol

import psutil


class Disk(Protocol):
    """A way in which a disk fails. `inside`: what the agent must be started with; see `agent_process`."""

    inside: Sequence[str]
    reason: str
    """The system's word for it."""

    def spoil(self, pid: int, folder: Path) -> None:
        """From now on the process can write no file in the folder."""

    def mend(self, pid: int, folder: Path) -> None:
        """It can again."""


class Full:
    """Every write fails, as on a full disk: by the limit of the size of files, which needs no privilege."""

    inside: Sequence[str] = ()
    reason = "File too large"

    def spoil(self, pid: int, folder: Path) -> None:  # noqa: ARG002 - it is so everywhere
        """Lower the limit."""
        psutil.Process(pid).rlimit(psutil.RLIMIT_FSIZE, (0, psutil.RLIM_INFINITY))

    def mend(self, pid: int, folder: Path) -> None:  # noqa: ARG002
        """Raise it."""
        psutil.Process(pid).rlimit(psutil.RLIMIT_FSIZE, (psutil.RLIM_INFINITY, psutil.RLIM_INFINITY))


class ReadOnly:
    """The folder is read-only: a mount in the agent's own namespace for root, whom permissions do not stop."""

    def __init__(self) -> None:
        self._root = os.geteuid() == 0
        self.inside: Sequence[str] = ("unshare", "--mount") if self._root else ()
        self.reason = "Read-only file system" if self._root else "Permission denied"

    def spoil(self, pid: int, folder: Path) -> None:
        """Cover the folder by itself, read-only; or take the right to write."""
        if self._root:
            self._run(pid, "mount", "--bind", str(folder), str(folder))
            self._run(pid, "mount", "-o", "remount,bind,ro", str(folder))
        else:
            folder.chmod(0o500)

    def mend(self, pid: int, folder: Path) -> None:
        """Undo it."""
        if self._root:
            self._run(pid, "umount", str(folder))
        else:
            folder.chmod(0o700)

    @staticmethod
    def _run(pid: int, *command: str) -> None:
        subprocess.run(["nsenter", f"--mount=/proc/{pid}/ns/mnt", *command], check=True)  # noqa: S607


DISKS: Final[dict[str, type[Disk]]] = {"full": Full, "read-only": ReadOnly}
