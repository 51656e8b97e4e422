"""Locate the cache and state folders (XDG) and write private files.

Checks that the names of clusters are safe as names of folders. Must not know the meaning of the files.
"""

import os
import re
import tempfile
from pathlib import Path

from localkube.errors import KindError

DEFAULT_NAME = "kind"
_NAME = re.compile(r"[a-z0-9.-]+")


def check_name(name: str) -> str:
    """Return the name if kind would take it as a cluster's name and it cannot leave its folder."""
    if is_name(name):
        return name
    if not _NAME.fullmatch(name):
        raise KindError(f"'{name}' is not a valid cluster name, cluster names must match `^[a-z0-9.-]+$`")
    raise KindError(f"'{name}' is not a valid cluster name, cluster names must begin with a letter or a digit")


def is_name(name: str) -> bool:
    """Return True if the name is valid for a cluster."""
    return bool(_NAME.fullmatch(name)) and name[0].isalnum()


def cache_folder() -> Path:
    """Return the folder of what can be rebuilt: programs and the Go toolchain."""
    return _xdg("XDG_CACHE_HOME", ".cache") / "hotpool"


def clusters_folder() -> Path:
    """The parent of the clusters' folders."""
    return _xdg("XDG_STATE_HOME", ".local/state") / "hotpool" / "clusters"


def make_private(folder: Path) -> Path:
    """Make a folder, missing parents included, that only its owner can enter."""
    for missing in [path for path in (*reversed(folder.parents), folder) if not path.exists()]:
        missing.mkdir(mode=0o700, exist_ok=True)
    return folder


def write_private(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Replace a file in one step; readers see the old content or the new, never a part."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        temporary.chmod(mode)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _xdg(variable: str, default: str) -> Path:
    """The XDG base folder; a relative value is to be ignored, says its specification."""
    path = Path(os.environ.get(variable, ""))
    return path if path.is_absolute() else Path.home() / default
