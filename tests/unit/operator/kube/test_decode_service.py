"""Services and EndpointSlices on the wire (requirement D12)."""

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
from tests.support.builders import Json, pool

from hotpool.core.model import Meta
from hotpool.core.service_model import (
    DesiredService,
    DesiredSlice,
    EndpointGroup,
    EndpointTarget,
    ServicePort,
    SliceEndpoint,
)
from hotpool.kube.decode_service import decode_endpoint_slice, decode_service, endpoint_slice_body, service_body

_POLICY = Path(__file__).parents[4] / "charts/hotpool/templates/operator/admission.yaml"
POOL = pool("zh-en")
PORTS = (ServicePort("asr", 80, "http"), ServicePort("tts", 81))
NODE, POD = EndpointTarget("NodeCapability", "", "n", "u"), EndpointTarget("Pod", "apps", "p", "v")
CONTENT = DesiredSlice(
    EndpointGroup("asr", "IPv4", 6007),
    "http",
    (
        SliceEndpoint("10.0.0.1", "Ready", "n", "n", NODE),
        SliceEndpoint("10.0.0.2", "Suspect", None, None, NODE),
        SliceEndpoint("10.0.0.3", "Draining", "n", None, POD),
    ),
)


def stored(body: Json) -> Json:
    """Return an object as the API server stores it: with an identity."""
    body = json.loads(json.dumps(body))
    body["metadata"] |= {"uid": "uid", "resourceVersion": "5", "namespace": "fleet"}
    return body


def stored_service(*, headless: bool = False) -> Json:
    body = stored(service_body(POOL, DesiredService("zh-en", headless, PORTS), 7))
    body["spec"] |= {"clusterIP": "None" if headless else "10.96.0.9", "sessionAffinity": "None"}
    return body


def stored_slice() -> Json:
    body = endpoint_slice_body(POOL, Meta("zh-en", "s", 1), "a-slice", CONTENT, term=7, namespace="fleet")
    return stored(body)


@pytest.mark.parametrize("headless", [False, True])
def test_a_service_is_decoded_as_it_was_written(headless: bool) -> None:  # noqa: FBT001 - a case
    found = decode_service(stored_service(headless=headless))
    assert found
    assert (found.meta, found.pool, found.owner, found.term) == (Meta("zh-en", "uid", 5), "zh-en", "uid-zh-en", 7)
    assert (found.content, found.intact) == (DesiredService("zh-en", headless, PORTS), True)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("selector", {"app": "x"}),
        ("type", "NodePort"),
        ("externalIPs", ["192.0.2.1"]),
        ("externalName", "example.org"),
        ("loadBalancerSourceRanges", ["192.0.2.0/24"]),
        ("loadBalancerClass", "x"),
        ("ipFamilyPolicy", "SingleStack"),
        ("publishNotReadyAddresses", True),
        ("healthCheckNodePort", 30000),
        ("ports", [{"name": "asr", "port": 80, "nodePort": 30000}]),
        ("ports", [{"name": "asr", "port": 80, "protocol": "UDP"}]),
        ("ports", [{"name": "asr", "port": 80, "targetPort": 81}]),
    ],
)
def test_a_service_with_a_field_that_sends_traffic_elsewhere_is_not_intact(field: str, value: Any) -> None:
    body = stored_service()
    body["spec"][field] = value
    found = decode_service(body)
    assert found
    assert not found.intact


def test_a_service_stays_intact_with_fields_that_people_may_set() -> None:
    body = stored_service()
    body["spec"] |= {"sessionAffinity": "ClientIP", "trafficDistribution": "PreferClose"}
    body["metadata"]["annotations"]["example.org/note"] = "x"
    found = decode_service(body)
    assert found
    assert found.intact


def test_a_patch_of_a_service_removes_what_does_not_belong_there() -> None:
    spec = service_body(POOL, DesiredService("zh-en", headless=False, ports=PORTS), 7, to_patch=True)["spec"]
    removed = {"selector", "externalIPs", "externalName", "loadBalancerIP", "publishNotReadyAddresses"}
    assert {name for name in removed if spec[name] is not None} == set()
    assert spec["type"] == "ClusterIP"
    assert "clusterIP" not in spec


def test_an_endpoint_slice_is_decoded_as_it_was_written() -> None:
    found = decode_endpoint_slice(stored_slice())
    assert found
    assert (found.pool, found.owner, found.term, found.service, found.family) == ("zh-en", "s", 7, "zh-en", "IPv4")
    assert found.content == CONTENT


def test_the_conditions_of_an_endpoint_are_those_of_its_state() -> None:
    conditions = [endpoint["conditions"] for endpoint in stored_slice()["endpoints"]]
    assert [(c["ready"], c["serving"], c["terminating"]) for c in conditions] == [
        (True, True, False),
        (False, False, False),
        (False, False, True),
    ]


def edited(path: str, value: Any) -> Json:
    """Return the slice with one value replaced; path: keys and indices, separated by dots."""
    body = copy.deepcopy(stored_slice())
    *parents, last = [int(key) if key.isdecimal() else key for key in path.split("/")]
    inner: Any = body
    for key in parents:
        inner = inner[key]
    inner[last] = value
    return body


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("endpoints/0/addresses", ["10.0.0.1", "10.0.0.9"]),
        ("endpoints/0/addresses", []),
        ("endpoints/0/zone", "a"),
        ("endpoints/0/hints", {"forZones": [{"name": "a"}]}),
        ("endpoints/0/conditions", {"ready": True}),
        ("endpoints/0/conditions", {"ready": False, "serving": True, "terminating": True}),
        ("endpoints/0/targetRef", None),
        ("endpoints/1", "not an object"),
        ("endpoints", 5),
        ("ports", []),
        ("ports/0/protocol", "UDP"),
        ("ports/0/name", None),
        ("metadata/labels/endpointslice.kubernetes.io~1managed-by", ""),
    ],
)
def test_an_endpoint_slice_that_holds_anything_else_is_decoded_without_content(path: str, value: Any) -> None:
    body = edited(path, value) if "~1" not in path else stored_slice()
    if "~1" in path:
        del body["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"]
    found = decode_endpoint_slice(body)
    assert found
    assert found.content is None or found.content != CONTENT


@pytest.mark.parametrize("text", ["", "x", "-1", "1.5", "9" * 30])
def test_a_term_that_no_leader_wrote_is_none(text: str) -> None:
    body = stored_service()
    body["metadata"]["annotations"] = {"service.hotpool.dev/term": text}
    found = decode_service(body)
    assert found
    assert found.term is None


@pytest.mark.parametrize("text", ["0", str(2**53), "9" * 16])
def test_a_term_that_the_admission_policy_keeps_from_going_back_is_known(text: str) -> None:
    policy = _POLICY.read_text(encoding="utf-8")
    (pattern,) = set(re.findall(r"variables\.(?:term|before)\.matches\('(.+?)'\)", policy))
    assert re.fullmatch(pattern, text)
    body = stored_service()
    body["metadata"]["annotations"] = {"service.hotpool.dev/term": text}
    found = decode_service(body)
    assert found
    assert found.term == int(text)


@pytest.mark.parametrize("body", [{}, {"metadata": None}, {"metadata": {"name": "x"}}, {"metadata": []}])
def test_an_object_without_an_identity_is_not_decoded(body: Json) -> None:
    assert decode_service(body) is None
    assert decode_endpoint_slice(body) is None
