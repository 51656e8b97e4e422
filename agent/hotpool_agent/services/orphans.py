"""Which processes of earlier agents still run, and what they are to this one (requirement A11). I/O.

Never takes a stranger's process: boot, pid and start time must be those that the state file names; where the agent died
before it wrote the file, the process must bear the mark of this state folder.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from hotpool_agent.services.process import ProcessGroup, Process, remaining_groups
from hotpool_agent.state_store import State

_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")


@dataclass(slots=True)
class OrphanedProcesses:
    """`mine`: one process for each service, to be adopted or ended by it. `strays`: what has to be ended."""

    adoptable: dict[str, Process] = field(default_factory=dict)
    unclaimed: list[tuple[str, Process]] = field(default_factory=list)


def find(folder: Path, state: State, ports: Mapping[str, int | None]) -> OrphanedProcesses:
    """What still runs. Forgets in `state` the processes that do not, and those of an earlier boot."""
    found = OrphanedProcesses()
    before, state.boot = state.boot, _boot()
    for name, kept in state.services.items():
        process = None
        if before == state.boot and kept.pid is not None and kept.started is not None:
            process = Process.find(kept.pid, kept.started, ports.get(name))
        if process:
            found.adoptable[name] = process
        else:
            kept.pid = kept.started = kept.recipe = kept.since = None
    recorded = set(found.adoptable)
    for name, groups in remaining_groups(folder).items():
        if name not in recorded:
            _classify(name, groups, ports.get(name), found)
            if name in found.adoptable and name in state.services:
                state.services[name].recipe = next(group.digest for group in groups if group.started >= 0)
    return found


def _boot() -> str:
    with suppress(OSError):
        return _BOOT.read_text(encoding="ascii").strip()
    return ""


def _classify(name: str, groups: list[ProcessGroup], port: int | None, found: OrphanedProcesses) -> None:
    """Of groups that the state file does not name the oldest with a leader is the service's; the others are strays."""
    for group in groups:
        if group.started >= 0 and name not in found.adoptable:
            found.adoptable[name] = Process(group.leader, group.started, port)
        else:
            found.unclaimed.append((name, Process(group.leader, group.started, None)))
