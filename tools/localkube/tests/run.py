"""A run of all tests of the tool, or of those that pytest's arguments select. A complete green run is recorded."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from localkube import cgroups, requirements
from localkube.errors import KindError
from localkube.node import NAMESPACES
from localkube.tests import record

_HERE = Path(__file__).parent
_KIND = _HERE.parent.with_name("kind")
_TIERS = ("unit", "cluster", "worker")
_MOUNT = ("unshare", *NAMESPACES, "--fork", "mount", "-t", "tmpfs", "none", "/mnt")
_NOT_RUN = (
    "NOT RUN: tools/localkube/tests/worker. It needs Linux, root, and the right to make namespaces, mounts and control "
    "groups; everything else has passed."
)


def main(selection: Sequence[str]) -> int:
    """Run the tiers that this machine allows; return pytest's exit status. Raise KindError if a package is missing."""
    worker = _allows_a_worker()
    if worker:
        requirements.check()
    before = record.digest(record.REPOSITORY)
    if status := _run(_TIERS if worker else _TIERS[:-1], selection):
        return status
    if not worker:
        print(_NOT_RUN, file=sys.stderr)
    elif selection:
        print("Not recorded: this was a selection of the tests.")
    elif record.digest(record.REPOSITORY) != before:
        print("Not recorded: files of the tool have changed during the run.")
    else:
        record.write(record.REPOSITORY, before)
        print(f"Recorded in {record.RECORD}: commit it if it has changed.")
    return 0


def _run(tiers: Sequence[str], selection: Sequence[str]) -> int:
    """Build the programs first: that may take longer than pytest's timeout of one test."""
    group = ["--worker"] if "worker" in tiers else []
    subprocess.run([_KIND, "build", "node-image", *group], check=True, stdout=subprocess.DEVNULL)
    tests = [sys.executable, "-m", "pytest", *(str(_HERE / tier) for tier in tiers), *selection]
    return subprocess.run(tests, cwd=record.REPOSITORY, check=False).returncode


def _allows_a_worker() -> bool:
    """Try to make namespaces, a mount and a control group."""
    if os.geteuid():
        return False
    group = f"localkube-try-{os.getpid()}"
    try:
        subprocess.run(_MOUNT, check=True, capture_output=True)
        try:
            cgroups.create(group)
        finally:
            cgroups.remove(group)
    except (OSError, subprocess.CalledProcessError, KindError):
        return False
    return True


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KindError as missing:
        sys.exit(f"ERROR: {missing}")
