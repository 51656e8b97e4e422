"""What tests of pods in the report share: a catalogue without services, facts of an agent, and a pod as a service."""

from typing import Any, Final

from hotpool.api.capability import Hardware, Platform
from hotpool_agent.catalogue.model import Catalogue
from hotpool_agent.pods.pod_service import pod_service
from hotpool_agent.reporting.report_builder import AgentInfo
from hotpool_agent.services.status import ServiceStatus

FACTS: Final = AgentInfo("0.1.0", "instance", "session", 15, Platform(os="linux"), Hardware(cpus=2))
NONE: Final = Catalogue(version=1, onAgentExit="keep")


def shown(pod: dict[str, Any]) -> ServiceStatus:
    """The service that a pod is."""
    found = pod_service("speech", pod).status
    assert found
    return found
