"""`hotpool-agent logs`: output of a service, read from the node's state folder without the agent."""

import re
import shutil
import sys
import time
from collections import deque
from pathlib import Path
from typing import BinaryIO, Final

import click

from hotpool.api.names import LABEL_PATTERN
from hotpool.common import exit_codes
from hotpool.common.cli_help import command
from hotpool_agent.cli.common import exit_with_error, node_folder, node_option, service_argument
from hotpool_agent.cli.help import LOGS, AgentHelp
from hotpool_agent.paths import LOG_SUFFIX, log_file, previous_log

_POLL_SECONDS: Final = 0.2
_TRUNCATION_SECONDS: Final = 10.0
"""More than a rotation needs between copy and truncation, even on a busy machine."""
_BLOCK: Final = 64 * 1024
_Identity = tuple[int, int] | None

_HELP: Final = AgentHelp(
    codes={
        exit_codes.OK: "the log was printed",
        exit_codes.FAILED: "there is no such log, or it cannot be read",
        exit_codes.USAGE: "wrong usage",
        exit_codes.INTERRUPTED: "Ctrl-C ended --follow",
    },
    files=(LOGS,),
    examples={
        "The last 50 lines": "hotpool-agent logs faster-whisper --node edge-017 -n 50",
        "Only new output": "hotpool-agent logs faster-whisper -f -n 0",
        "Output before the last rotation": "hotpool-agent logs faster-whisper --previous",
    },
)


@command(_HELP)
@service_argument
@node_option
@click.option("--follow", "-f", is_flag=True, help="Print new output until Ctrl-C.")
@click.option("--tail", "-n", type=click.IntRange(0), metavar="N", help="Only the last N lines; default: all.")
@click.option("--previous", "-p", is_flag=True, help="Print the output before the last rotation.")
def logs(*, identifier: str, node: str | None, follow: bool, tail: int | None, previous: bool) -> None:
    """Print the output of a service.

    That is its standard output and standard error. Neither agent nor service needs to run. A log is rotated at
    10 MiB; one previous file is kept.
    """
    if follow and previous:
        exit_with_error("--follow and --previous exclude each other: a previous log does not grow", exit_codes.USAGE)
    path = _path(node_folder(node), identifier)
    try:
        _print(previous_log(path) if previous else path, tail, follow=follow)
    except FileNotFoundError:
        exit_with_error(_missing(path, previous=previous), exit_codes.FAILED)
    except PermissionError as error:
        exit_with_error(f"{error.filename}: {error.strerror}", exit_codes.FAILED)
    except KeyboardInterrupt:
        sys.exit(exit_codes.INTERRUPTED)


class Follower:
    """Printer of new bytes of a log file, also across its rotation."""

    def __init__(self, path: Path, tail: int | None, out: BinaryIO) -> None:
        """Begin with the last `tail` lines; None: with all."""
        self._path = path
        self._out = out
        self._rotated, self._offset = _start(path, tail)

    def step(self) -> None:
        """Print the new bytes."""
        with self._path.open("rb") as file:
            # A shorter file was truncated without a copy.
            start = self._offset if self._offset <= file.seek(0, 2) else 0
            file.seek(start)
            new = file.read()
        # Check for a rotation after reading: bytes read from a truncated file have another offset and are read again.
        if _identity(previous_log(self._path)) != self._rotated:
            if self._wait_truncated():
                copy(previous_log(self._path), self._offset, self._out)
                self._offset = 0
            self._rotated = _identity(previous_log(self._path))
            self.step()
            return
        self._out.write(new)
        self._out.flush()
        self._offset = start + len(new)

    def _wait_truncated(self) -> bool:
        """Wait until the copied file is truncated. Return False if it is not: the agent died after the copy."""
        deadline = time.monotonic() + _TRUNCATION_SECONDS
        while _holds_copy(self._path, previous_log(self._path)):
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_SECONDS / 10)
        return True


def _holds_copy(path: Path, copied: Path) -> bool:
    """Return True while a file still holds the bytes that were copied from it."""
    with path.open("rb") as file, copied.open("rb") as previous:
        head = previous.read(_BLOCK)
        return bool(head) and file.read(len(head)) == head and file.seek(0, 2) >= previous.seek(0, 2)


def copy(path: Path, start: int, out: BinaryIO) -> None:
    """Write the bytes of a file from offset `start` to `out`."""
    with path.open("rb") as file:
        file.seek(start)
        shutil.copyfileobj(file, out)
    out.flush()


def last_lines(path: Path, count: int) -> int:
    """Return the offset of the last `count` lines. A last line without a newline counts."""
    starts, end = deque[int](maxlen=count), 0
    with path.open("rb") as file:
        for line in file:
            starts.append(end)
            end += len(line)
    return starts[0] if starts else end


def _print(path: Path, tail: int | None, *, follow: bool) -> None:
    follower = Follower(path, tail, sys.stdout.buffer)
    follower.step()
    while follow:
        time.sleep(_POLL_SECONDS)
        follower.step()


def _path(folder: Path, identifier: str) -> Path:
    """Return the log file of a service; end the command if the id is invalid, for it could lead out of the folder."""
    if not re.fullmatch(LABEL_PATTERN, identifier):
        exit_with_error(f"{identifier!r} is not a service id: use lower-case letters, digits and '-'", exit_codes.USAGE)
    return log_file(folder, identifier)


def _missing(path: Path, *, previous: bool) -> str:
    if previous and path.exists():
        return f"{path} was not rotated yet: there is no previous log"
    known = sorted(file.name.removesuffix(LOG_SUFFIX) for file in path.parent.glob(f"*{LOG_SUFFIX}"))
    if known:
        return f"no log {path}; there are logs of: {', '.join(known)}"
    return f"no log {path}; check --node and HOTPOOL_AGENT_STATE_DIR. For the log of a pod: kubectl logs"


def _start(path: Path, tail: int | None) -> tuple[_Identity, int]:
    """Return identity of the previous log and offset of the last `tail` lines, both of a time between two rotations."""
    while True:
        rotated = _identity(previous_log(path))
        offset = 0 if tail is None else last_lines(path, tail)
        if _identity(previous_log(path)) == rotated:
            return rotated, offset


def _identity(path: Path) -> _Identity:
    """Return inode and mtime, which differ from those of the file of the former rotation; None: there is no file.

    Not ctime: a backup that links the file, and people who change its mode or owner, change that, too.
    """
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return stat.st_ino, stat.st_mtime_ns
