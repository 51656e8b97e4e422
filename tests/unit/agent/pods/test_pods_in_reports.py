"""Pods in the node's report: their ids, the limit of size, and the node's identity (requirements B5, B6, B11, B12)."""

import base64
import json
from typing import Any

import pytest
from tests.support.fake_pods import pod
from tests.support.pod_services import BLANK_REPORT, EMPTY_CATALOGUE, service_of

from hotpool.api.capability import REPORT_BYTES
from hotpool_agent.catalogue.model import Catalogue
from hotpool_agent.kube.pod_identity import KubeNode, parse_node
from hotpool_agent.pods.pod_registry import PodRegistry
from hotpool_agent.reporting.report_builder import Change, ReportContent, build, classify, to_json
from hotpool_agent.services.status import ServiceStatus

Json = dict[str, Any]


def ids(registry: PodRegistry, *taken: str) -> list[str]:
    return [service.spec.id for service in registry.services(taken)[0]]


def test_the_id_is_the_name_and_of_two_equal_names_the_first_keeps_it() -> None:
    registry = PodRegistry()
    registry.replace("b", [pod("asr-0")])
    assert ids(registry) == ["asr-0"]
    registry.replace("a", [pod("asr-0")])
    services, rejected = registry.services(())
    assert {service.pod: service.spec.id for service in services}["b/asr-0"] == "asr-0"
    assert len({service.spec.id for service in services}) == 2
    assert rejected == []
    other = {service.pod: service.spec.id for service in services}["a/asr-0"]
    registry.apply_event("b", "DELETED", pod("asr-0"))
    assert ids(registry) == [other]


def test_an_id_of_the_catalogue_is_never_given_to_a_pod() -> None:
    registry = PodRegistry()
    registry.replace("a", [pod("whisper")])
    assert ids(registry) == ["whisper"]
    (other,) = ids(registry, "whisper")
    assert other.startswith("whisper-")
    assert ids(registry, "whisper") == [other]


@pytest.mark.parametrize("name", ["a.b", "a" * 200, "x" * 60 + ".b"])
def test_a_pod_whose_name_cannot_be_an_id_gets_a_unique_one(name: str) -> None:
    registry = PodRegistry()
    registry.replace("a", [pod(name)])
    registry.replace("b", [pod(name)])
    found = ids(registry)
    assert len(set(found)) == 2
    assert all(len(identifier) <= 63 and "." not in identifier for identifier in found)
    again = PodRegistry()
    again.replace("b", [pod(name)])
    again.replace("a", [pod(name)])
    assert ids(again) == found


def test_a_list_replaces_and_events_add_to_it() -> None:
    registry = PodRegistry()
    registry.replace("a", [pod("one"), pod("two")])
    registry.apply_event("a", "ADDED", pod("three"))
    registry.apply_event("a", "MODIFIED", pod("one", "tts"))
    assert [(s.spec.id, s.spec.type) for s in registry.services(())[0]] == [
        ("one", "tts"),
        ("three", "asr"),
        ("two", "asr"),
    ]
    registry.replace("a", [pod("two")])
    assert ids(registry) == ["two"]


def test_pods_without_a_type_are_counted_in_the_report() -> None:
    registry = PodRegistry()
    registry.replace("a", [pod("one"), pod("two", "No")])
    services, rejected = registry.services(())
    assert [reason.split(":")[0] for reason in rejected] == ["pod a/two"]
    assert build(EMPTY_CATALOGUE, services, BLANK_REPORT, leaving=False, refused=rejected).report.dropped == 1


def many(count: int, characters: int) -> ReportContent:
    values = ["v" * 250] * (characters // 250)
    pods = [
        pod(f"pod-{index:03}", attributes=json.dumps({"languages": ["en", "zh"], "tier": values}))
        for index in range(count)
    ]
    registry = PodRegistry()
    registry.replace("speech", pods)
    return build(EMPTY_CATALOGUE, registry.services(())[0], BLANK_REPORT, leaving=False)


def test_sixty_pods_of_a_node_fit_into_a_report() -> None:
    found = many(60, 250)
    assert (len(found.report.capabilities[0].services), found.report.dropped, found.dropped) == (60, 0, ())
    assert len(json.dumps(to_json(found.report))) < REPORT_BYTES


def test_of_pods_that_do_not_fit_the_oldest_stay_and_the_others_are_counted() -> None:
    found = many(60, 3000)
    kept = [service.id for service in found.report.services]
    assert 10 < len(kept) < 60
    assert kept == [f"pod-{index:03}" for index in range(len(kept))]
    assert tuple(kept) == found.report.capabilities[0].services
    assert found.dropped == tuple(f"speech/pod-{index:03}" for index in range(len(kept), 60))
    assert found.report.dropped == 60 - len(kept)
    assert len(json.dumps(to_json(found.report))) < REPORT_BYTES


def test_pods_take_no_room_from_the_catalogue() -> None:
    spec = {"id": "own", "type": "nmt", "run": {"command": ["x"]}, "attributes": {"tier": ["v" * 250] * 200}}
    catalogue = Catalogue.model_validate({"version": 1, "services": [spec]})
    registry = PodRegistry()
    registry.replace(
        "speech", [pod(f"pod-{index}", attributes=json.dumps({"t": ["v" * 250] * 8})) for index in range(20)]
    )
    own = ServiceStatus(catalogue.services[0], "Running")
    found = build(catalogue, [own, *registry.services(())[0]], BLANK_REPORT, leaving=False)
    assert found.report.services[0].id == "own"
    assert found.dropped
    assert len(json.dumps(to_json(found.report))) < REPORT_BYTES


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (pod("a", attributes="languages: [en, zh]"), Change.GAIN),
        (pod("a", attributes="languages: [zh]"), Change.WITHDRAWAL),
        (pod("a", attributes="languages: ["), Change.WITHDRAWAL),
        (pod("a", ready=False, attributes="languages: [en]"), Change.WITHDRAWAL),
        (pod("a", attributes="languages: [en]", model="m"), Change.NEUTRAL),
        (pod("a", attributes="languages: [en]", port="8"), Change.GAIN),
    ],
)
def test_a_pods_change_is_a_gain_a_withdrawal_or_neutral(after: Json, expected: Change) -> None:
    assert classify(reported(pod("a", attributes="languages: [en]")), reported(after)) is expected


def with_address(value: Json, *ips: str) -> Json:
    value["status"]["podIPs"] = [{"ip": ip} for ip in ips]
    return value


@pytest.mark.parametrize(
    "after",
    [
        pod("a", port="9"),
        pod("a"),
        pod("a", port="8", app_protocol="grpc"),
        with_address(pod("a", port="8"), "10.1.0.8"),
        with_address(pod("a", port="8")),
    ],
)
def test_a_pods_changed_place_to_connect_to_is_a_withdrawal(after: Json) -> None:
    assert classify(reported(pod("a", port="8")), reported(after)) is Change.WITHDRAWAL


def reported(value: Json) -> ReportContent:
    return build(EMPTY_CATALOGUE, [service_of(value)], BLANK_REPORT, leaving=False)


def token(claims: Any) -> str:
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"head.{payload}.signature"


def test_the_node_is_read_from_the_claims() -> None:
    claims = {"kubernetes.io": {"node": {"name": "edge-1", "uid": "u-1"}, "pod": {"name": "p", "uid": "u-2"}}}
    assert parse_node(token(claims)) == KubeNode("u-1", "edge-1")


NODES = [5, {}, {"uid": "", "name": "n"}, {"uid": "u" * 64, "name": "n"}, {"uid": "u", "name": None}]


@pytest.mark.parametrize(
    "text",
    [
        *("", "a", "a.b.c", "a.e30.c", "a.\u00e9.c", "a.AAAA.c", token([]), token({"kubernetes.io": {"pod": {}}})),
        *(token({"kubernetes.io": {"node": node}}) for node in NODES),
    ],
)
def test_a_token_without_a_valid_node_gives_none(text: str) -> None:
    assert parse_node(text) is None
