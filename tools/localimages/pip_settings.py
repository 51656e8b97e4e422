"""The machine's pip settings, from files and PIP_… variables, as one pip.conf, and the paths that they name.

The build receives them as a secret. Must not leave any of them in an image.
"""

import ast
import subprocess
import sys
from pathlib import Path

_OPTIONS = ("index-url", "extra-index-url", "no-index", "find-links", "trusted-host", "proxy", "timeout", "retries")
_FILES = ("cert", "client-cert")


def settings() -> dict[str, str]:
    """Return the options for the location of packages and the connection; a variable wins over a file, as in pip."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "config", "list"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    pairs = [line.split("=", 1) for line in lines]
    found: dict[str, str] = {}
    for scope in ("global.", "install.", ":env:."):
        found |= {key.removeprefix(scope): ast.literal_eval(value) for key, value in pairs if key.startswith(scope)}
    return {name: value for name, value in found.items() if name in (*_OPTIONS, *_FILES)}


def pip_conf(settings: dict[str, str]) -> str:
    """Return the settings as the text of a pip.conf."""
    lines = [f"{name} = {' '.join(value.split())}" for name, value in settings.items()]
    return "\n".join(["[global]", *lines, ""])


def paths(settings: dict[str, str]) -> list[Path]:
    """Return the existing files and folders of this machine that the settings name."""
    words = [word for name in ("find-links", *_FILES) for word in settings.get(name, "").split()]
    return sorted({Path(word) for word in words if Path(word).is_absolute() and Path(word).exists()})
