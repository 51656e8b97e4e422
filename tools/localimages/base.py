"""The base image: a small Debian with Python, made by debootstrap from the machine's Debian mirror.

Must not contain anything of hotpool or of this machine.
"""

import hashlib
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

from localimages.buildah import Buildah
from localimages.errors import ImageError

SUITE = "bookworm"
_COMMAND = ["debootstrap", "--variant=minbase", "--include=python3,python3-venv,ca-certificates", SUITE]
_EMPTIED = ("var/cache/apt", "var/lib/apt/lists", "var/log", "usr/share/locale", "usr/share/man")
_OF_THIS_MACHINE = ("etc/hostname", "etc/resolv.conf")
_DOCKERFILE = 'FROM scratch\nCOPY root/ /\nCMD ["python3"]\n'


def tag() -> str:
    """Return the image's name, which depends on the recipe and on the machine's architecture."""
    recipe = repr([platform.machine(), _COMMAND, _EMPTIED, _OF_THIS_MACHINE, _DOCKERFILE])
    return f"localhost/hotpool-base:{SUITE}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"


def make(buildah: Buildah) -> None:
    """Build the image into the storage. Takes a minute and needs the mirror. Raises ImageError."""
    with tempfile.TemporaryDirectory(prefix="hotpool-base-") as name:
        folder = Path(name)
        root = folder / "root"
        _debootstrap(root, folder / "debootstrap.log")
        for path in _EMPTIED:
            shutil.rmtree(root / path)
            (root / path).mkdir()
        for path in _OF_THIS_MACHINE:
            (root / path).unlink(missing_ok=True)
        (folder / "Dockerfile").write_text(_DOCKERFILE, encoding="utf-8")
        buildah.build(tag(), folder / "Dockerfile", folder)


def _debootstrap(root: Path, log: Path) -> None:
    with log.open("wb") as output:
        done = subprocess.run(
            [*_COMMAND, str(root)], stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=False
        )
    if done.returncode:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-20:])
        raise ImageError(f"debootstrap failed (is the package debian-archive-keyring installed?):\n{tail}")
