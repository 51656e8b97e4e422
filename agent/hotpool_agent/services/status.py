"""What `service` shows of itself and `report` and `bounds` make words of. Pure data."""

from dataclasses import dataclass

from hotpool.api.capability import ServiceState
from hotpool_agent.catalogue.model import ServiceSpec


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """One service as it is now: its catalogue entry and its state."""

    spec: ServiceSpec
    state: ServiceState
    since: str | None = None
    pid: int | None = None
    restarts: int = 0
    last_error: str | None = None
    desired: str | None = None
    desired_by: str | None = None
    request_id: str | None = None
    flapping: bool = False
    """It may run, but it comes and goes too often to be offered (requirement A7)."""
    pod: str | None = None
    """NAMESPACE/NAME of the pod that it is; None: an entry of the catalogue."""
    dropped: int = 0
    """What of its declaration could not be read, and counts for nothing."""
