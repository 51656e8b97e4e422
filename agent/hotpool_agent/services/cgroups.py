"""A cgroup v2 for each service, where the agent may create one (requirement A9). I/O, Linux.

No process can leave it without the right to write elsewhere, so it also holds daemons that shed session, parent and
environment. The kernel ends its members all at once (`cgroup.kill`, since Linux 5.14).
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

_PREFIX: Final = "hotpool-"
_DELEGATED: Final = ("user.delegate", "trusted.delegate")
"""Attributes by which systemd marks a subtree that it leaves to a service."""


@dataclass(frozen=True, slots=True)
class Cgroup:
    """Cgroup of one service. Every operation is without effect where the kernel or a right refuses it."""

    path: Path

    def open(self) -> int | None:
        """Create the cgroup, and return a descriptor for `enter`. None: that is impossible."""
        with suppress(OSError):
            self.path.mkdir(exist_ok=True)
            return os.open(self.path / "cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
        return None

    def pids(self) -> set[int]:
        """Return the living processes in it and in the cgroups below."""
        found: set[int] = set()
        for folder in self._folders():
            with suppress(OSError):
                found.update(map(int, (folder / "cgroup.procs").read_text(encoding="ascii").split()))
        return found - {0}

    def kill(self) -> None:
        """Kill all processes in it."""
        with suppress(OSError), (self.path / "cgroup.kill").open("r+", encoding="ascii") as file:
            file.write("1")

    def remove(self) -> None:
        """Remove the cgroup and those below; one with a process stays."""
        for folder in reversed(list(self._folders())):
            with suppress(OSError):
                folder.rmdir()

    def _folders(self) -> Iterator[Path]:
        """Yield the cgroup and those below, parents first."""
        for folder, _, _ in os.walk(self.path):
            yield Path(folder)


def enter(descriptor: int) -> None:
    """Move the calling process into an open cgroup."""
    with suppress(OSError):
        os.write(descriptor, b"0")


def of_service(owner: str) -> Cgroup | None:
    """Return the cgroup of a service, which may not exist yet. None: the agent may not create cgroups.

    `owner`: the part of the ownership tag that names state folder and service; without one there is none.
    """
    if not owner or (parent := _delegated_folder()) is None:
        return None
    digest = hashlib.sha256(owner.encode(errors="replace")).hexdigest()[:8]
    return Cgroup(parent / f"{_PREFIX}{digest}-{owner.rpartition(':')[2]}")


def existing(owner_of: Callable[[str], str]) -> dict[str, Cgroup]:
    """Return the cgroups that agents of a state folder left: service id → cgroup. `owner_of`: id → owner."""
    found: dict[str, Cgroup] = {}
    if (parent := _delegated_folder()) is not None:
        for folder in parent.glob(f"{_PREFIX}*"):
            name = folder.name.removeprefix(_PREFIX).partition("-")[2]
            if (cgroup := of_service(owner_of(name))) and cgroup.path == folder:
                found[name] = cgroup
    return found


@cache
def _delegated_folder() -> Path | None:
    """Return the folder of the agent's own cgroup if the subtree below is its own."""
    with suppress(OSError, ValueError, StopIteration):
        path = next(
            line.removeprefix("0::")
            for line in Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
            if line.startswith("0::")
        )
        root, mount = _mount()
        folder = mount / Path(path).relative_to(root)
        if _is_delegated(folder, is_root=path == "/"):
            return folder
    return None


def _mount() -> tuple[str, Path]:
    """Return the root within the hierarchy, and the mount point, of the first cgroup v2 mount."""
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        fields, _, kind = line.partition(" - ")
        if kind.startswith("cgroup2 "):
            return fields.split()[3], Path(fields.split()[4])
    raise ValueError("no cgroup v2 is mounted")


def _is_delegated(folder: Path, *, is_root: bool) -> bool:
    """Return True if the agent may create cgroups here: root can everywhere, but must not below systemd's."""
    if not os.access(folder, os.W_OK) or not os.access(folder / "cgroup.procs", os.W_OK):
        return False
    # The root of a container's cgroup namespace has a file that the machine's own root does not have.
    if os.geteuid() != 0 or (is_root and (folder / "cgroup.events").exists()):
        return True
    return any(_has_attribute(folder, name) for name in _DELEGATED)


def _has_attribute(folder: Path, name: str) -> bool:
    with suppress(OSError):
        return os.getxattr(folder, name) == b"1"
    return False
