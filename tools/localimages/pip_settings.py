"""The machine's settings of pip, for a build that cannot see them.

Its job: what pip here was told by its files and by PIP_… variables, as one pip.conf, and the paths that this names.
Called by: hotpool. It must not: leave any of it in an image; the build gets it as a secret.
"""

import ast
import subprocess
import sys
from pathlib import Path

_OPTIONS = ("index-url", "extra-index-url", "no-index", "find-links", "trusted-host", "proxy", "timeout", "retries")
_FILES = ("cert", "client-cert")


def settings() -> dict[str, str]:
    """Options that say where packages are and how they are reached; a variable wins over a file, as in pip."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "config", "list"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    pairs = [line.split("=", 1) for line in lines]
    found: dict[str, str] = {}
    for scope in ("global.", "install.", ":env:."):
        found |= {key.removeprefix(scope): ast.literal_eval(value) for key, value in pairs if key.startswith(scope)}
    return {name: value for name, value in found.items() if name in (*_OPTIONS, *_FILES)}


def pip_conf(said: dict[str, str]) -> str:
    """Return them as the text of a pip.conf."""
    lines = [f"{name} = {' '.join(value.split())}" for name, value in said.items()]
    return "\n".join(["[global]", *lines, ""])


def paths(said: dict[str, str]) -> list[Path]:
    """Files and folders of this machine that the settings name and that are there."""
    words = [word for name in ("find-links", *_FILES) for word in said.get(name, "").split()]
    return sorted({Path(word) for word in words if Path(word).is_absolute() and Path(word).exists()})
