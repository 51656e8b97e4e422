"""Run one background program of a cluster.

Starts it in a session of its own, recognises it later from another command, and stops it; one small file is its
record. Must not signal a process of which it is not certain that we started it.
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path

from localkube.errors import KindError
from localkube.paths import make_private, write_private

MARKER = "HOTPOOL_CLUSTER_FOLDER"
# Also where runc, nft and mount are; the caller's own PATH may lack the folders of the administrator.
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_GRACE = 5.0
_KILL_GRACE = 10.0
_FORK_WITHIN = 10.0
_PAUSE = 0.05
_START_TIME = 19  # The 22nd field of /proc/<pid>/stat, counted after the program's name.
_children: dict[int, subprocess.Popen[bytes]] = {}


class State(Enum):
    """State of a program."""

    RUNNING = "running"
    STOPPED = "stopped"  # On purpose, by stop(), or not started yet.
    DEAD = "dead"


@dataclass(frozen=True)
class Launch:
    """Command line and environment of a program.

    ``forks``: the command line is that of a launcher whose only child is the program (unshare, nsenter).
    """

    argv: list[str]
    forks: bool = False
    umask: int = 0o077


@dataclass(frozen=True)
class _Record:
    launch: Launch | None = None
    pid: int | None = None
    identity: str | None = None


class Process:
    """A program of the cluster in ``folder``."""

    def __init__(self, folder: Path, program: str) -> None:
        self.program = program
        self.log = folder / "logs" / f"{program}.log"
        self._folder = folder
        self._record_file = folder / "run" / f"{program}.json"

    def define(self, launch: Launch) -> None:
        """Fix the command line with which every start runs."""
        self._write(_Record(launch))

    def start(self) -> None:
        """Start the program if it does not run; it outlives us."""
        if self.state is State.RUNNING:
            return
        launch = self._read().launch
        if not launch:
            raise KindError(f"no cluster in {self._folder}")
        make_private(self.log.parent)
        self.log.touch(mode=0o600)
        with self.log.open("ab") as log:
            child = subprocess.Popen(
                launch.argv,
                cwd=self._folder,
                env=environment(self._folder),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                umask=launch.umask,
            )
        _children[child.pid] = child
        pid = _only_child(child.pid) if launch.forks else child.pid
        self._write(_Record(launch, pid, identity(pid)))

    def stop(self, grace: float = _GRACE) -> None:
        """Stop the program on purpose; the cluster still counts as alive. Without a grace: kill it."""
        if pid := self.pid:
            _signal_until_gone([pid], grace)
        if launch := self._read().launch:
            self.define(launch)

    @property
    def state(self) -> State:
        """Return the state of exactly the process that we started."""
        if self.pid:
            return State.RUNNING
        return State.STOPPED if self._read().pid is None else State.DEAD

    @property
    def pid(self) -> int | None:
        """The process id, if it is still ours."""
        record = self._read()
        if record.pid is None or record.identity is None:
            return None
        return record.pid if identity(record.pid) == record.identity else None

    def log_tail(self, lines: int = 15) -> str:
        """The end of the program's log."""
        try:
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        except FileNotFoundError:
            return "(no log)"

    def _read(self) -> _Record:
        try:
            stored = json.loads(self._record_file.read_bytes())
            return _Record(Launch(**stored["launch"]), stored["pid"], stored["identity"])
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            return _Record()

    def _write(self, record: _Record) -> None:
        make_private(self._record_file.parent)
        write_private(self._record_file, json.dumps(asdict(record)).encode())


def identity(pid: int) -> str | None:
    """Return what no later process with this id shares (boot and start time); None if it is gone or a zombie."""
    if (child := _children.get(pid)) and child.poll() is not None:
        del _children[pid]
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else f"{_boot()}/{fields[_START_TIME]}"


def kill_orphans(folder: Path) -> None:
    """Kill what was started for the folder but not recorded, because its starter was killed in between."""
    _signal_until_gone(_marked(folder), 0)


def wait_until(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait for a condition with a deadline; return whether it became true."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(_PAUSE)
    return True


def _signal_until_gone(pids: Iterable[int], grace: float) -> None:
    """Ask with SIGTERM; after the grace, or at once if there is none, SIGKILL."""
    alive = {pid: known for pid in pids if (known := identity(pid))}

    def send(number: signal.Signals) -> None:
        for pid, known in alive.items():
            if identity(pid) == known:
                with suppress(ProcessLookupError):  # it ended since
                    os.kill(pid, number)

    def gone() -> bool:
        return all(identity(pid) != known for pid, known in alive.items())

    if grace:
        send(signal.SIGTERM)
    if not wait_until(gone, grace):
        send(signal.SIGKILL)
        wait_until(gone, _KILL_GRACE)


def _marked(folder: Path) -> Iterator[int]:
    """The processes of this user whose environment names the folder."""
    mark = f"{MARKER}={folder}".encode()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (entry / "environ").read_bytes().split(b"\0"):
                yield int(entry.name)
        except (PermissionError, FileNotFoundError, ProcessLookupError):
            continue


def environment(folder: Path) -> dict[str, str]:
    """Return an environment without the user's proxies and credentials: the program outlives the command."""
    return {"PATH": SYSTEM_PATH, "HOME": str(folder), MARKER: str(folder)}


def _only_child(launcher: int) -> int:
    """Return the process that the launcher started; the launcher itself if it ended before."""
    children = Path(f"/proc/{launcher}/task/{launcher}/children")
    found: list[str] = []

    def settled() -> bool:
        try:
            found[:] = children.read_text().split()
        except (FileNotFoundError, ProcessLookupError):
            return True
        return bool(found) or identity(launcher) is None

    wait_until(settled, _FORK_WITHIN)
    return int(found[0]) if found else launcher


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
