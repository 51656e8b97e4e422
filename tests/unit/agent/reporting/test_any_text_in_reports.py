"""Any scalar of JSON and YAML through every entrance of the agent (requirements A12, B11).

The report is built and can be sent, an invalid item is left out and counted, and other services are unaffected.
"""

import json
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from tests.support.fake_pods import pod
from tests.support.pod_services import BLANK_REPORT, EMPTY_CATALOGUE

from hotpool.api.capability import Report, Service
from hotpool_agent import host_info
from hotpool_agent.catalogue.loader import CatalogueError, parse_catalogue
from hotpool_agent.catalogue.model import Catalogue, ServiceSpec
from hotpool_agent.kube.pod_identity import parse_node
from hotpool_agent.pods.pod_registry import PodRegistry
from hotpool_agent.reporting.ownership import parse_stored
from hotpool_agent.reporting.report_builder import ReportContent, build, stamped
from hotpool_agent.services.status import ServiceStatus
from hotpool_agent.untrusted_text import parse_json

Json = dict[str, Any]
EXTREMES: list[object] = [
    "\ud83c\udfc6",
    "\ud83c",
    "\udfc6x",
    "a\0b",
    "x" * 2**20,
    "🏆" * 2**18,
    10**5000,
    -(2**63),
    1e308,
    float("nan"),
    float("inf"),
    "",
    "\r\n\x85\u2028\ufeff",
]
scalars: st.SearchStrategy[object] = st.one_of(
    st.sampled_from(EXTREMES),
    st.text(st.characters(exclude_categories=()), max_size=40),
    st.integers(),
    st.floats(),
    st.booleans(),
    st.none(),
    st.dates(),
    st.binary(max_size=10),
)
GOOD = pod("good", attributes="{languages: [en], tier: [gold]}")


def as_text(value: object) -> str:
    """Return the value as a program would write it into a text field."""
    return value if isinstance(value, str) else str(value) if not isinstance(value, int) else hex(value)


def reported(pods: Iterable[Json], *others: ServiceStatus, catalogue: Catalogue = EMPTY_CATALOGUE) -> ReportContent:
    """Return the report of these pods, as the agent builds it, after checking that it can be sent."""
    registry = PodRegistry()
    registry.replace("speech", pods)
    services, rejected = registry.services([status.spec.id for status in others])
    content = build(catalogue, [*others, *services], BLANK_REPORT, leaving=False, refused=rejected)
    sent = json.dumps(stamped(content, 1, 1, "now"), ensure_ascii=False, allow_nan=False).encode()
    assert "\\u0000" not in sent.decode()
    Report.model_validate_json(sent)
    return content


def good_of(content: ReportContent) -> Service:
    """Return the service that nothing may affect, after checking that it is offered."""
    (found,) = (service for service in content.report.services if service.id == "good")
    assert content.offers("good")
    return found


EXPECTED = good_of(reported([GOOD]))


def check(content: ReportContent, *, complete: bool) -> None:
    """Check the good service, and that something is counted if not all is reported."""
    assert good_of(content) == EXPECTED
    assert complete or content.report.dropped > 0
    assert len(content.dropped_items) > 0 or content.report.dropped == 0


def with_metadata(**changes: Any) -> Json:
    other = pod("other")
    return other | {"metadata": other["metadata"] | changes}


def json_text(document: object) -> str | None:
    """Return JSON with escapes, as many libraries write it; None for what is no JSON."""
    try:
        return json.dumps(document)
    except (TypeError, ValueError):
        return None


def yaml_text(document: object) -> str | None:
    try:
        return yaml.safe_dump(document, default_flow_style=True, width=10**9)
    except (yaml.YAMLError, UnicodeError, ValueError):
        return None


@pytest.mark.parametrize("dump", [json_text, yaml_text])
@given(value=scalars, key=scalars)
def test_any_scalar_in_an_annotation(dump: Callable[[object], str | None], value: object, key: object) -> None:
    for document in ({"tier": [value]}, {key: ["v"]}, {"languages": value}, value):
        if (text := dump(document)) is None:
            continue
        annotations = {"hotpool.dev/attributes": text}
        content = reported([GOOD, with_metadata(annotations=annotations)])
        (other,) = (service for service in content.report.services if service.id == "other")
        check(content, complete=not other.last_error or "attributes" not in other.last_error)
        assert content.offers("other")


@given(scalars, st.sampled_from(["port", "device", "model", "attributes"]))
def test_any_value_of_an_annotation(value: object, key: str) -> None:
    for given_value in (value, as_text(value)):
        content = reported([GOOD, with_metadata(annotations={f"hotpool.dev/{key}": given_value})])
        (other,) = (service for service in content.report.services if service.id == "other")
        check(content, complete=other.last_error is None)


@given(scalars, st.sampled_from(["type", "version", "name", "labels", "annotations", "creationTimestamp"]))
def test_any_value_in_the_metadata_of_a_pod(value: object, key: str) -> None:
    labels = {"hotpool.dev/type": "asr"}
    changes: Json = {
        "type": {"labels": {"hotpool.dev/type": value}},
        "version": {"labels": labels | {"app.kubernetes.io/version": value}},
    }.get(key, {key: value})
    check(reported([GOOD, with_metadata(**changes)]), complete=True)


@given(scalars, scalars)
def test_any_text_in_the_status_of_a_pod(message: object, time: object) -> None:
    waiting = {"name": message, "state": {"waiting": {"reason": as_text(message), "message": message}}}
    condition = {"type": "Ready", "status": "False", "message": message, "lastTransitionTime": time}
    for status in (
        {"phase": "Failed", "message": message},
        {"containerStatuses": [waiting], "conditions": [condition]},
    ):
        check(reported([GOOD, pod("other") | {"status": status}]), complete=True)


@given(scalars)
def test_any_answer_of_a_probe_and_any_content_of_the_state_file(value: object) -> None:
    spec = ServiceSpec.model_validate({"id": "observed", "type": "nmt", "port": 1, "observe": {"http": {}}})
    text = as_text(value)
    check(reported([GOOD], ServiceStatus(spec, "Failed", last_error=text)), complete=True)
    content = reported([GOOD], ServiceStatus(spec, "Running", since=text, desired=text, desired_by=text))
    # A service that no report can hold is not offered, either.
    assert content.offers("observed") == any(service.id == "observed" for service in content.report.services)
    check(content, complete=content.offers("observed"))


@given(scalars, scalars)
def test_any_scalar_in_a_catalogue_is_reported_or_a_clear_error(value: object, key: object) -> None:
    for attributes in ({"tier": [value]}, {key: ["v"]}):
        service = {"id": "mine", "type": "nmt", "run": {"command": ["x"]}, "attributes": attributes}
        for text in (
            json_text({"version": 1, "services": [service]}),
            yaml_text({"version": 1, "services": [service]}),
        ):
            if text is None:
                continue
            try:
                catalogue = parse_catalogue(text, "c.yaml")
            except CatalogueError as error:
                errors = error.errors
            else:
                errors = []
            assert all(line.startswith("c.yaml:") for line in errors)
            if errors:
                continue
            status = ServiceStatus(catalogue.services[0], "Running")
            content = reported([GOOD], status, catalogue=catalogue)
            (mine,) = (service for service in content.report.services if service.id == "mine")
            check(content, complete=[attribute.values for attribute in mine.attributes] != [()])


@given(scalars)
def test_any_fact_of_the_device(value: object) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("socket.gethostname", lambda: as_text(value))
        platform = host_info.this_platform(None)
    assert platform.model_dump_json().encode()


@given(scalars, scalars)
def test_any_scalar_in_the_stored_report_and_the_token(value: object, key: object) -> None:
    text = json_text({"status": {"report": {as_text(key): value, "instance": value, "epoch": value}}})
    if text is not None:
        stored = parse_stored(parse_json(text))
        assert stored
        assert json.dumps([stored.instance, stored.session, stored.epoch], ensure_ascii=False).encode()
    assert parse_node(as_text(value)) is None
