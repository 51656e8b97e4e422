"""Paths of an agent's state, its socket and the logs of its services; creates nothing.

Quick to import, for the commands that query a running agent.
"""

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Final

SOCKET_BYTES: Final = 107
"""Longest path of a unix socket on Linux, in bytes."""
LOG_SUFFIX: Final = ".log"


class PathError(Exception):
    """No usable path; the message says what to set."""


def state_folder(node: str) -> Path:
    """Return the node's state folder, in $HOTPOOL_AGENT_STATE_DIR or else in $XDG_STATE_HOME/hotpool-agent.

    Raises PathError if that is in the home directory of an unknown user.
    """
    home = Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state")
    folder = Path(os.environ.get("HOTPOOL_AGENT_STATE_DIR") or home / "hotpool-agent") / node
    try:
        return folder.expanduser().absolute()
    except RuntimeError as error:
        raise PathError(
            f"{folder}: there is no such home directory; set HOTPOOL_AGENT_STATE_DIR to another folder"
        ) from error


def log_folder(folder: Path) -> Path:
    """Return the folder of the services' log files."""
    return folder / "logs"


def log_file(folder: Path, service: str) -> Path:
    """Return the log file of a service."""
    return log_folder(folder) / f"{service}{LOG_SUFFIX}"


def previous_log(path: Path) -> Path:
    """Return the file that keeps the content of a log file from before its last rotation."""
    return path.with_name(f"{path.name}.1")


def socket_path(folder: Path) -> Path:
    """Return the socket of a state folder: in it, or if that path is too long, in a temporary folder under a hash.

    Depends on the folder and the user only, so that agent and command line agree. Raises PathError.
    """
    own = folder / "agent.sock"
    if _fits(own):
        return own
    short = hashlib.sha256(str(folder).encode()).hexdigest()[:16]
    # Not earlier: gettempdir() writes a test file, which fails on a full disk.
    shared = Path(tempfile.gettempdir()) / f"hotpool-agent-{os.getuid()}" / f"{short}.sock"
    if _fits(shared):
        return shared
    raise PathError(
        f"{shared} is longer than the {SOCKET_BYTES} bytes of a socket's path; "
        "set HOTPOOL_AGENT_STATE_DIR or TMPDIR to a shorter folder"
    )


def _fits(path: Path) -> bool:
    return len(os.fsencode(path)) <= SOCKET_BYTES
