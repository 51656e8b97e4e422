"""Search for processes that earlier agents left running (requirement A11). I/O.

Never adopts a foreign process: boot, pid and start time must equal those in the state file. If the agent died before it
wrote the file, the process must have the ownership tag of this state folder, or be in the cgroup of a service of it.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

import structlog

from hotpool_agent.services import cgroups, members, process_table
from hotpool_agent.services.process import Process
from hotpool_agent.services.process_table import ProcessEntry, owner
from hotpool_agent.state_store import State, StoredServiceState

_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")
_LOG: Final = structlog.get_logger(__name__)


@dataclass(slots=True)
class OrphanedProcesses:
    """Processes by service id. `adoptable`: its own process lives. `leftovers`: only others do, which must be ended."""

    adoptable: dict[str, Process] = field(default_factory=dict)
    leftovers: dict[str, Process] = field(default_factory=dict)


async def find(folder: Path, state: State, ports: Mapping[str, int | None]) -> OrphanedProcesses:
    """Return the processes that still run. Remove ended ones, and those of an earlier boot, from `state`."""
    orphaned, unrecorded = OrphanedProcesses(), dict[str, StoredServiceState]()
    last_boot, state.boot = state.boot, _boot()
    for name, stored in state.services.items():
        process = None
        if last_boot == state.boot and stored.pid is not None and stored.started is not None:
            process = Process.find(stored.pid, stored.started, ports.get(name), owner(folder, name))
        elif last_boot == state.boot:
            unrecorded[name] = stored
        if process:
            orphaned.adoptable[name] = process
        else:
            stored.pid = stored.started = stored.recipe = stored.since = None
    for name, marked in (await _find_marked(folder)).items():
        if name not in orphaned.adoptable:
            (oldest, digest), *_ = marked
            # If a process was recorded and has ended, these are its children, and must not be adopted in its place.
            adoptable = name in unrecorded and oldest.session == oldest.pid
            if adoptable:
                unrecorded[name].recipe = digest
            processes = orphaned.adoptable if adoptable else orphaned.leftovers
            processes[name] = Process(*oldest.key, ports.get(name), owner(folder, name))
    _add_unmarked(orphaned, folder, ports)
    return orphaned


def _add_unmarked(orphaned: OrphanedProcesses, folder: Path, ports: Mapping[str, int | None]) -> None:
    """Add processes that are known by their cgroup only, and remove empty cgroups."""
    for name, cgroup in cgroups.existing(partial(owner, folder)).items():
        if name not in orphaned.adoptable and name not in orphaned.leftovers:
            if entries := list(filter(None, map(process_table.read_entry, cgroup.pids()))):
                # A start that hangs has no ownership tag before its program begins.
                orphaned.leftovers[name] = Process(*min(entries).key, ports.get(name), owner(folder, name))
            else:
                cgroup.remove()


def _boot() -> str:
    with suppress(OSError):
        return _BOOT.read_text(encoding="ascii").strip()
    return ""


async def _find_marked(folder: Path) -> dict[str, list[tuple[ProcessEntry, str]]]:
    try:
        return await members.find_marked(str(folder))
    except TimeoutError:
        _LOG.error("processes of earlier agents not searched: their environments cannot be read")
        return {}
