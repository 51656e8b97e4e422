"""Check that the machine has what a worker needs: root, and programs that are not Go modules.

Names everything that is missing in one message. Must not install or change anything.
"""

import os
import shutil
import subprocess
from pathlib import Path

from localkube.errors import KindError
from localkube.paths import cache_folder, clusters_folder
from localkube.process import SYSTEM_PATH

# Each program and the package of Debian and Ubuntu that has it.
_PACKAGES = {
    "runc": "runc",
    "nft": "nftables",
    "ip": "iproute2",
    "mount": "mount",
    "unshare": "util-linux",
    "nsenter": "util-linux",
}
# The node has its own.
_HIDDEN = (Path("/var"), Path("/run"))


def check() -> None:
    """Raise unless a worker can run here."""
    if os.geteuid():
        raise KindError("a cluster with a worker node needs root: its pods have namespaces and control groups")
    if missing := [program for program in _PACKAGES if not _find(program)]:
        packages = " ".join(dict.fromkeys(_PACKAGES[program] for program in missing))
        raise KindError(f"a worker node needs {', '.join(missing)}: run 'apt-get install {packages}'")
    if "libseccomp" not in _output(runc()):
        raise KindError(f"{runc()} was built without seccomp, so no pod would start: run 'apt-get install runc'")
    for folder in (clusters_folder(), cache_folder()):
        if any(folder.resolve().is_relative_to(hidden) for hidden in _HIDDEN):
            raise KindError(
                f"a worker node has its own /var and /run, so it cannot use {folder}: "
                "set XDG_STATE_HOME and XDG_CACHE_HOME to folders elsewhere"
            )


def runc() -> str:
    """The program that starts containers."""
    return _find("runc") or "runc"


def _find(program: str) -> str | None:
    return shutil.which(program, path=SYSTEM_PATH)


def _output(program: str) -> str:
    return subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
