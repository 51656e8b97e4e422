"""Execute a program in a delegated cgroup v2 of its own, mounted in its own mount namespace. For root.

    unshare --mount python own_cgroup.py FOLDER NAME PROGRAM...

FOLDER: an empty folder, the mount point. NAME: of the new cgroup, which the caller removes.
"""

import os
import subprocess
import sys
from pathlib import Path


def main() -> None:
    """Mount, enter the cgroup, and execute the program."""
    mount, name, *program = sys.argv[1:]
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)  # noqa: S607
    subprocess.run(["mount", "-t", "cgroup2", "none", mount], check=True)  # noqa: S607
    cgroup = Path(mount) / name
    cgroup.mkdir(exist_ok=True)
    os.setxattr(cgroup, "trusted.delegate", b"1")  # As systemd marks the cgroup of a unit with Delegate=yes.
    (cgroup / "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")
    os.execvp(program[0], program)  # noqa: S606


if __name__ == "__main__":
    main()
