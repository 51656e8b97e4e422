"""Debian's buildah with a storage of its own: no daemon, no settings of the machine, root only.

An error contains the end of its output. Must not touch other storages.
"""

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from localimages.errors import ImageError

_TAIL = 30
_PACKAGES = {"debootstrap": "debootstrap", "buildah": "buildah"}
_POLICY = '{"default": [{"type": "insecureAcceptAnything"}]}'


def check_machine() -> None:
    """Raise ImageError, with the command to run, if this machine cannot build an image."""
    if os.geteuid():
        raise ImageError("building an image needs root: run 'sudo -E make images'")
    missing = [package for program, package in _PACKAGES.items() if not shutil.which(program)]
    if missing:
        raise ImageError(f"{' and '.join(missing)} missing: apt-get install {' '.join(missing)}")


class Buildah:
    """One storage of images and layers, for one user at a time; the caller has to lock it."""

    def __init__(self, folder: Path) -> None:
        self._options = ["--root", str(folder / "storage"), "--runroot", str(folder / "run")]
        folder.mkdir(parents=True, exist_ok=True)
        self._policy = folder / "policy.json"
        self._policy.write_text(_POLICY, encoding="utf-8")

    def has(self, tag: str) -> bool:
        """Return True if the image is in the storage."""
        command = ["buildah", *self._options, "inspect", "--type", "image", tag]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def build(self, tag: str, dockerfile: Path, context: Path, words: Sequence[str] = ()) -> None:
        """Build a Dockerfile, or one stage of it. `words`: further options, such as the time of files and image."""
        self._run(
            *("build", "--isolation", "chroot", "--layers", "--signature-policy", str(self._policy)),
            *("--file", str(dockerfile), "--tag", tag, *words, str(context)),
        )

    def save(self, tag: str, archive: Path) -> None:
        """Write an image as a docker archive, a format that `ctr`, `docker load`, `podman load` and kind read."""
        self._run("push", "--signature-policy", str(self._policy), tag, f"docker-archive:{archive}:{tag}")

    def tidy(self) -> None:
        """Remove the remains of a killed build, and layers that no named image needs."""
        self._run("rm", "--all")
        self._run("rmi", "--prune")

    def _run(self, *words: str) -> None:
        command = ["buildah", *self._options, *words]
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        if done.returncode:
            tail = "\n".join(done.stdout.splitlines()[-_TAIL:])
            raise ImageError(f"buildah {words[0]} failed:\n{tail}")
