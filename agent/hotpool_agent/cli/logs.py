"""`hotpool-agent logs`: what a service has printed, read from the node's state folder; no agent needs to run."""

import re
import sys
import time
from pathlib import Path
from typing import Annotated, BinaryIO, Final

import typer

from hotpool.api.names import LABEL_PATTERN
from hotpool_agent.cli import help_sections as m
from hotpool_agent.cli.common import NodeOption, ServiceId, exit_with_error, folder_of
from hotpool_agent.paths import LOG_SUFFIX, log_file, previous_log

_LOOK_SECONDS: Final = 0.2
_EMPTIED_SECONDS: Final = 10.0
"""More than a rotation takes from the copy until the file is emptied, on a machine that is busy."""
_BLOCK: Final = 64 * 1024

_LOGS: Final = m.HelpSections(
    codes={
        m.OK: "the log was printed",
        m.FAILED: "there is no such log, or it cannot be read",
        m.USAGE: "wrong usage",
        m.INTERRUPTED: "Ctrl-C ended --follow",
    },
    files=(m.LOGS,),
    examples=(
        ("hotpool-agent logs faster-whisper --node edge-017 -n 50", "The last 50 lines"),
        ("hotpool-agent logs faster-whisper -f -n 0", "Only what is printed from now on"),
        ("hotpool-agent logs faster-whisper --previous", "What was before the last rotation"),
    ),
)


app: Final = typer.Typer(rich_markup_mode=None)


@app.command(cls=m.command(_LOGS))
def logs(
    identifier: ServiceId,
    *,
    node: NodeOption = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is printed, until Ctrl-C.")] = False,
    tail: Annotated[
        int | None, typer.Option("--tail", "-n", min=0, metavar="N", help="Only the last N lines; default: all.")
    ] = None,
    previous: Annotated[
        bool, typer.Option("--previous", "-p", help="What was printed before the last rotation.")
    ] = False,
) -> None:
    """Print what a service has written to its output.

    That is its standard output and standard error. Works whether or not an agent or the service runs. A log is
    rotated at 10 MiB, with one previous file kept.
    """
    if follow and previous:
        exit_with_error("--previous is finished: it cannot be followed", m.USAGE)
    path = _path(folder_of(node), identifier)
    try:
        _print(previous_log(path) if previous else path, tail, follow=follow)
    except FileNotFoundError:
        exit_with_error(_missing(path, previous=previous), m.FAILED)
    except PermissionError as error:
        exit_with_error(f"{error.filename}: {error.strerror}", m.FAILED)
    except KeyboardInterrupt:
        raise typer.Exit(m.INTERRUPTED) from None


class Follower:
    """Prints what a log file gains, also across its rotation."""

    def __init__(self, path: Path, at: int, out: BinaryIO) -> None:
        self._path = path
        self._at = at
        self._out = out
        self._kept = _identity(previous_log(path))

    def step(self) -> None:
        """Print what is new."""
        with self._path.open("rb") as file:
            # Shorter than before: it was emptied, and no copy was kept.
            start = self._at if self._at <= file.seek(0, 2) else 0
            file.seek(start)
            news = file.read()
        # Looked at afterwards: what was read of an emptied file is at another place, and is read again.
        if _identity(previous_log(self._path)) != self._kept:
            if self._is_emptied():
                copy(previous_log(self._path), self._at, self._out)
                self._at = 0
            self._kept = _identity(previous_log(self._path))
            self.step()
            return
        self._out.write(news)
        self._out.flush()
        self._at = start + len(news)

    def _is_emptied(self) -> bool:
        """Wait for what follows the copy: False where it does not, because the agent died in between."""
        until = time.monotonic() + _EMPTIED_SECONDS
        while _begins_alike(self._path, previous_log(self._path)):
            if time.monotonic() > until:
                return False
            time.sleep(_LOOK_SECONDS / 10)
        return True


def _begins_alike(path: Path, kept: Path) -> bool:
    """Whether a file still holds what was copied of it."""
    with path.open("rb") as file, kept.open("rb") as copied:
        head = copied.read(_BLOCK)
        return bool(head) and file.read(len(head)) == head and file.seek(0, 2) >= copied.seek(0, 2)


def copy(path: Path, start: int, out: BinaryIO) -> None:
    """Print the file from `start` on."""
    with path.open("rb") as file:
        file.seek(start)
        while chunk := file.read(_BLOCK):
            out.write(chunk)
    out.flush()


def last_lines(path: Path, count: int) -> int:
    """Where the file's last `count` lines begin; a last line without an end counts as one."""
    with path.open("rb") as file:
        at = file.seek(0, 2)
        wanted = count + 1
        while at and count:
            size = min(_BLOCK, at)
            at -= size
            file.seek(at)
            block = file.read(size)
            end = len(block)
            if at + size == path.stat().st_size and block.endswith(b"\n"):
                end -= 1
            while (end := block.rfind(b"\n", 0, end)) >= 0:
                wanted -= 1
                if wanted == 1:
                    return at + end + 1
        return at


def _print(path: Path, tail: int | None, *, follow: bool) -> None:
    start = 0 if tail is None else last_lines(path, tail)
    follower = Follower(path, start, sys.stdout.buffer)
    follower.step()
    while follow:
        time.sleep(_LOOK_SECONDS)
        follower.step()


def _path(folder: Path, identifier: str) -> Path:
    """The service's log file; an id that is none must not lead out of the folder."""
    if not re.fullmatch(LABEL_PATTERN, identifier):
        exit_with_error(f"{identifier!r} is no service id: lower case letters, digits and '-'", m.USAGE)
    return log_file(folder, identifier)


def _missing(path: Path, *, previous: bool) -> str:
    if previous and path.exists():
        return f"{path} was not rotated yet: there is no previous one"
    known = sorted(file.name.removesuffix(LOG_SUFFIX) for file in path.parent.glob(f"*{LOG_SUFFIX}"))
    if known:
        return f"no log {path}; there are logs of: {', '.join(known)}"
    return f"no log {path}; is --node or HOTPOOL_AGENT_STATE_DIR another one? A pod's log: kubectl logs"


def _identity(path: Path) -> tuple[int, int] | None:
    """What no other file has had or will have at this place."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return stat.st_ino, stat.st_ctime_ns
