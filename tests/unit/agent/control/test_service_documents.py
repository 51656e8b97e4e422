"""Reasons why a service is not offered, in the response to `status` (requirements A7, B2, B11)."""

from typing import Any

import pytest

from hotpool_agent.catalogue.model import Catalogue, ServiceSpec
from hotpool_agent.control.service_documents import service_documents
from hotpool_agent.services.status import ServiceStatus


def status(state: Any = "Running", device: str = "gpu", model: str = "m", **more: Any) -> ServiceStatus:
    spec = {"id": "s", "type": "asr", "device": device, "model": model, "run": {"command": ["x"]}}
    return ServiceStatus(ServiceSpec.model_validate(spec), state, **more)


def document(found: ServiceStatus, node_reason: str | None = None) -> dict[str, Any]:
    catalogue = Catalogue.model_validate({"version": 1, "types": {"asr": {"devices": ["gpu"]}}})
    (only,) = service_documents([found], catalogue, node_reason, None)
    return only


@pytest.mark.parametrize(
    ("found", "node_reason", "expected"),
    [
        (status(), None, None),
        (status("Stopped"), None, "Stopped"),
        (status("Failed", flapping=True), None, "Failed"),
        (status(device="cpu", flapping=True), None, "DeviceNotAccepted"),
        (status(flapping=True), "Draining", "Flapping"),
        (status(), "Draining", "Draining"),
        (status(), "ReportRejected", "ReportRejected"),
    ],
)
def test_a_service_names_the_first_reason_for_which_it_is_not_offered(
    found: ServiceStatus, node_reason: str | None, expected: str | None
) -> None:
    assert document(found, node_reason)["notOffered"] == expected


def test_a_service_counts_its_own_dropped_items() -> None:
    assert document(status(model="m" * 254))["dropped"] == 1
    assert document(status(dropped=2))["dropped"] == 2
    assert document(status())["dropped"] == 0


def test_a_pod_without_room_in_the_report_says_so() -> None:
    pods = [status(pod=f"speech/p{number}", model="m" * 250, last_error="e" * 1024) for number in range(100)]
    found = service_documents(pods, Catalogue(version=1), None, None)
    assert [item["notOffered"] for item in (found[0], found[-1])] == [None, "NoRoom"]
