"""Search for processes that earlier agents left running (requirement A11). I/O.

Never adopts a foreign process: boot, pid and start time must equal those in the state file. If the agent died before it
wrote the file, the process must have the ownership tag of this state folder.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from hotpool_agent.services.process import Process, ProcessGroup, remaining_groups
from hotpool_agent.state_store import State

_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")


@dataclass(slots=True)
class OrphanedProcesses:
    """`adoptable`: at most one process for each service, to adopt or end. `unclaimed`: processes to end."""

    adoptable: dict[str, Process] = field(default_factory=dict)
    unclaimed: list[tuple[str, Process]] = field(default_factory=list)


def find(folder: Path, state: State, ports: Mapping[str, int | None]) -> OrphanedProcesses:
    """Return the processes that still run. Remove ended ones, and those of an earlier boot, from `state`."""
    orphaned = OrphanedProcesses()
    last_boot, state.boot = state.boot, _boot()
    for name, stored in state.services.items():
        process = None
        if last_boot == state.boot and stored.pid is not None and stored.started is not None:
            process = Process.find(stored.pid, stored.started, ports.get(name))
        if process:
            orphaned.adoptable[name] = process
        else:
            stored.pid = stored.started = stored.recipe = stored.since = None
    recorded = set(orphaned.adoptable)
    for name, groups in remaining_groups(folder).items():
        if name not in recorded:
            _classify(name, groups, ports.get(name), orphaned)
            if name in orphaned.adoptable and name in state.services:
                state.services[name].recipe = next(group.digest for group in groups if group.started >= 0)
    return orphaned


def _boot() -> str:
    with suppress(OSError):
        return _BOOT.read_text(encoding="ascii").strip()
    return ""


def _classify(name: str, groups: list[ProcessGroup], port: int | None, orphaned: OrphanedProcesses) -> None:
    """Add groups that are not in the state file: the oldest one with a leader is adoptable, the others are not."""
    for group in groups:
        if group.started >= 0 and name not in orphaned.adoptable:
            orphaned.adoptable[name] = Process(group.leader, group.started, port)
        else:
            orphaned.unclaimed.append((name, Process(group.leader, group.started, None)))
