"""Objects that all services of a node share. Plain data."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from hotpool_agent.probes.prober import Prober
from hotpool_agent.services.start_queue import StartQueue
from hotpool_agent.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceContext:
    """Objects that all services of a node share."""

    settings: Settings
    folder: Path
    """The agent's state folder."""
    base: Path
    """Folder to which `workingDir` is relative."""
    prober: Prober
    changed: Callable[[], None]
    """Notify the reporter that the report may differ."""
    save_state: Callable[[], None]
    """Schedule a write of the state file."""
    wait_withdrawn: Callable[[str], Awaitable[None]]
    """Return when the last accepted report does not offer the service."""
    start_queue: StartQueue
    """Queue of heavy services."""
