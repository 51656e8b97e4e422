"""Values for tests of pods in reports: an empty catalogue, an agent, and the service of a pod."""

from typing import Any, Final

from hotpool.api.capability import Hardware, Platform
from hotpool_agent.catalogue.model import Catalogue
from hotpool_agent.pods.pod_service import pod_service
from hotpool_agent.reporting.report_builder import AgentInfo
from hotpool_agent.services.status import ServiceStatus

AGENT_INFO: Final = AgentInfo("0.1.0", "instance", "session", 15, Platform(os="linux"), Hardware(cpus=2))
EMPTY_CATALOGUE: Final = Catalogue(version=1, onAgentExit="keep")


def service_of(pod: dict[str, Any]) -> ServiceStatus:
    """Return the service of a pod."""
    found = pod_service("speech", pod).status
    assert found
    return found
