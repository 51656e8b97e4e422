"""The machine of the agent's world, read without the agent: its processes, and their answers."""

import os
import urllib.request
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import psutil
from tests.support.agent_world.entries import PROBE_SECONDS

from localfleet.catalogue import SERVICE

_MOST_THREADS: Final = 40
_MOST_FILES: Final = 100
_MOST_ZOMBIES: Final = 20


@dataclass
class ServiceProcesses:
    """Living processes of one service."""

    leaders: list[int] = field(default_factory=list)
    workers: list[int] = field(default_factory=list)


def processes(folder: Path, workers: Path) -> dict[str, ServiceProcesses]:
    """Return service id → processes of the agents with this state folder, by environment and command line."""
    found: dict[str, ServiceProcesses] = {}
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.status() == psutil.STATUS_ZOMBIE or not (words := process.cmdline()):
                continue
            if "-c" in words and words[-1].startswith(f"{workers}/"):
                name = Path(words[-1]).name.partition("-")[0]
                found.setdefault(name, ServiceProcesses()).workers.append(process.pid)
                continue
            variables = process.environ() if str(SERVICE) in words else {}  # empty for one that ends meanwhile
            if variables.get("HOTPOOL_AGENT_STATE_DIR") == str(folder):
                name = variables["HOTPOOL_AGENT_SERVICE"].split(":")[-2]
                found.setdefault(name, ServiceProcesses()).leaders.append(process.pid)
    return found


def growth(agent: int) -> list[str]:
    """Return what the agent's process has too much of: threads, open files, or zombies."""
    process = psutil.Process(agent)
    zombies = 0
    for child in process.children():
        with suppress(psutil.Error):
            zombies += child.status() == psutil.STATUS_ZOMBIE
    counts = {
        "threads": (process.num_threads(), _MOST_THREADS),
        "open files": (process.num_fds(), _MOST_FILES),
        "zombies": (zombies, _MOST_ZOMBIES),
    }
    return [f"the agent has {count} {what}" for what, (count, most) in counts.items() if count > most]


def get(port: int, path: str, method: str = "GET") -> str | None:
    """Return the body of a success response, else None."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method)
    try:
        with urllib.request.urlopen(request, timeout=PROBE_SECONDS) as response:  # noqa: S310
            return str(response.read().decode())
    except OSError:
        return None


def cgroups(agent: int, mount: Path, name: str) -> dict[str, bool]:
    """Return the services' cgroups in the agent's own cgroup, as mounted for the agent: name → a process is in it."""
    folder = Path(f"/proc/{agent}/root") / str(mount / name).lstrip("/")
    with suppress(OSError):
        folders = [Path(entry) for entry in os.scandir(folder) if entry.is_dir()]
        return {path.name.split("-", 2)[2]: "populated 1" in (path / "cgroup.events").read_text() for path in folders}
    return {}
