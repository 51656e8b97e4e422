"""A cgroup v2 of a test's own, in a mount namespace of its own."""

import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from localfleet.kind import REPOSITORY

_PROGRAM: Final = REPOSITORY / "tests" / "support" / "samples" / "own_cgroup.py"


@dataclass(frozen=True)
class OwnCgroup:
    """`inside`: words that execute a program in a cgroup with this name, which is mounted at `mount` for it."""

    name: str
    mount: Path
    inside: tuple[str, ...]

    def entered(self, program: list[str]) -> bool:
        """Return True if the program succeeds inside."""
        return subprocess.run([*self.inside, *program], check=False, capture_output=True).returncode == 0


@contextmanager
def own_cgroup(mount: Path) -> Iterator[OwnCgroup | None]:
    """Create the cgroup and an empty folder to mount it, and remove the cgroup afterwards. None: not allowed here."""
    name = f"hp-{secrets.token_hex(4)}"
    mount.mkdir()
    own = OwnCgroup(name, mount, ("unshare", "--mount", sys.executable, str(_PROGRAM), str(mount), name))
    if os.geteuid() != 0 or not own.entered(["true"]):
        yield None
        return
    yield own
    leave = "import os, pathlib, sys; p = pathlib.Path(sys.argv[1]);"
    leave += "(p.parent / 'cgroup.procs').write_text(str(os.getpid())); p.rmdir()"
    assert own.entered([sys.executable, "-c", leave, str(mount / name)])
