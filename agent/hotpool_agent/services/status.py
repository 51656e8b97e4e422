"""Status of one service, from which reports and listings are built. Pure data."""

from dataclasses import dataclass

from hotpool.api.capability import EndpointReason, ServiceEndpoint, ServiceState
from hotpool_agent.catalogue.model import ServiceSpec


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """Catalogue entry and current state of one service."""

    spec: ServiceSpec
    state: ServiceState
    since: str | None = None
    pid: int | None = None
    restarts: int = 0
    last_error: str | None = None
    """The last failure, with the last output lines before it, or with the response of the service to a probe."""
    stable_error: str | None = None
    """`last_error` without the text that the service chose; None: there is no such text."""
    last_output: tuple[str, ...] = ()
    """The last output lines before the last failure."""
    desired: str | None = None
    desired_by: str | None = None
    request_id: str | None = None
    flapping: bool = False
    """True while flap damping keeps the service not ready, even if it runs (requirement A7)."""
    pod: str | None = None
    """NAMESPACE/NAME of its pod; None for an entry of the catalogue."""
    pod_uid: str | None = None
    """metadata.uid of its pod."""
    endpoint: ServiceEndpoint | None = None
    endpoint_reason: EndpointReason | None = None
    """Reason why the service has no endpoint though it runs."""
    in_flight: int | None = None
    """Number of requests in progress, as the service says. None: it does not say, or neither it nor the node drains."""
    dropped: int = 0
    """Number of its annotations that are ignored because they cannot be read."""
