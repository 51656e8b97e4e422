"""Objects that all services of a node share. Plain data."""

from dataclasses import dataclass
from pathlib import Path

from hotpool_agent.endpoints.checker import EndpointChecker
from hotpool_agent.node_drain import NodeDrain
from hotpool_agent.probes.prober import Prober
from hotpool_agent.reporting_port import Reporting
from hotpool_agent.services.start_queue import StartQueue
from hotpool_agent.settings import Settings
from hotpool_agent.state_store import StateStore


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceContext:
    """Objects that all services of a node share."""

    settings: Settings
    base: Path
    """Folder to which `workingDir` is relative."""
    prober: Prober
    endpoints: EndpointChecker
    reporting: Reporting
    store: StateStore
    node_drain: NodeDrain
    start_queue: StartQueue
    """Queue of heavy services."""
