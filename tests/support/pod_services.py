"""Values for tests of pods in reports: an empty catalogue, a report without services, and the service of a pod."""

from typing import Any, Final

from hotpool.api.capability import REPORT_SCHEMA_VERSION, Hardware, Platform, Report
from hotpool_agent.catalogue.model import Catalogue
from hotpool_agent.pods.pod_service import pod_service
from hotpool_agent.services.status import ServiceStatus

BLANK_REPORT: Final = Report(
    schema_version=REPORT_SCHEMA_VERSION,
    agent_version="0.1.0",
    instance="instance",
    session="session",
    epoch=0,
    sequence=0,
    time="",
    interval_seconds=15,
    platform=Platform(os="linux"),
    hardware=Hardware(cpus=2),
)
EMPTY_CATALOGUE: Final = Catalogue(version=1, onAgentExit="keep")


def service_of(pod: dict[str, Any]) -> ServiceStatus:
    """Return the service of a pod."""
    found = pod_service("speech", pod).status
    assert found
    return found
