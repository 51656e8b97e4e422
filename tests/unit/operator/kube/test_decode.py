"""Decoding of wire objects: an invalid one is a value, never an exception (requirements B3, B11, C2, D10, D11)."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.support.builders import (
    condition,
    generator_object,
    kube_node_object,
    node_object,
    pool_object,
    report,
    service,
    slice_object,
    speech,
    stopped,
)
from tests.support.json_mutation import changed, paths

from hotpool.core.cluster_cache import ClusterCache
from hotpool.core.model import Generator, Heartbeat, Kind, KubeNode, Node, Pool, Rule, Slice
from hotpool.kube.decode import DecodeError, decode, decode_lease

GOOD: dict[Kind, dict[str, Any]] = {
    Kind.NODE: node_object(
        "n",
        report(
            *speech("zh", "en")["services"],
            service(
                "p",
                "llm",
                endpoint={"addresses": ["10.1.1.1"], "port": 80, "appProtocol": "http"},
                pod={"namespace": "a", "name": "p", "uid": "u"},
                maxConcurrent=8,
            ),
            addresses=[{"ip": "10.0.0.1", "source": "Route"}],
        ),
        labels={"site": "x"},
        addresses=["203.0.113.7"],
        limits=[{"type": "asr", "maxConcurrent": 4}],
        conditions=[condition()],
    ),
    Kind.KUBE_NODE: kube_node_object("n", labels={"site": "x"}, cordoned=True, addresses=["10.0.0.1"]),
    Kind.POOL: pool_object("p", requires={"types": [{"type": "asr"}], "languagePairs": {"allOf": ["zh-en"]}}),
    Kind.SLICE: slice_object("p", 0, "a", "b"),
    Kind.GENERATOR: generator_object("g", template={"spec": {"requires": {"types": [{"type": "asr"}]}}}),
}
CLASSES = {Kind.NODE: Node, Kind.KUBE_NODE: KubeNode, Kind.POOL: Pool, Kind.SLICE: Slice, Kind.GENERATOR: Generator}

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def assert_decodes(kind: Kind, body: Any) -> None:
    """Assert that decoding returns a DecodeError, or a value of the kind that the cache accepts."""
    found = decode(kind, body)
    if isinstance(found, DecodeError):
        assert (found.kind, isinstance(found.name, str), bool(found.reason)) == (kind, True, True)
        return
    assert isinstance(found, CLASSES[kind])
    cache = ClusterCache(gate_open=True)
    for other, good in GOOD.items():
        seen = decode(other, good)
        assert not isinstance(seen, DecodeError)
        cache.upsert(seen, 0.0)
    cache.upsert(found, 0.0)


@pytest.mark.parametrize("kind", list(Kind))
@given(body=JSON)
def test_any_json_is_a_value(kind: Kind, body: Any) -> None:
    assert_decodes(kind, body)


@pytest.mark.parametrize("kind", list(Kind))
@given(data=st.data())
@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow])
def test_a_valid_object_with_any_json_in_any_place_is_a_value(kind: Kind, data: st.DataObject) -> None:
    place = data.draw(st.sampled_from(paths(GOOD[kind])))
    body = changed(GOOD[kind], place, data.draw(JSON))
    if isinstance(body, dict) and isinstance(body.get("metadata"), dict) and "resourceVersion" in body["metadata"]:
        version = {"resourceVersion": "9"} if place[:2] != ("metadata", "resourceVersion") else {}
        body = {**body, "metadata": {**body["metadata"], **version}}
    assert_decodes(kind, body)


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize(
    "body", [None, [], "x", 7, {}, {"metadata": None}, {"metadata": []}, {"metadata": {"name": 5}}]
)
def test_json_that_is_not_an_object_is_a_decode_error(kind: Kind, body: Any) -> None:
    assert isinstance(decode(kind, body), DecodeError)


@pytest.mark.parametrize("kind", list(Kind))
def test_valid_objects_are_decoded(kind: Kind) -> None:
    found = decode(kind, GOOD[kind])
    assert isinstance(found, CLASSES[kind])


def node_of(**more: Any) -> Node:
    found = decode(Kind.NODE, node_object("n", **more))
    assert isinstance(found, Node)
    return found


@pytest.mark.parametrize(
    "bad", [{"epoch": -1}, {"intervalSeconds": 0}, {"services": [{"id": "x"}]}, {"capabilities": 5}]
)
def test_an_invalid_report_is_a_problem_and_the_rest_of_the_node_is_kept(bad: dict[str, Any]) -> None:
    found = node_of(content=report(**bad), labels={"a": "b"}, drain=True, conditions=[condition()])
    assert found.report is None
    assert found.problem
    assert found.problem.startswith(f"status.report.{next(iter(bad))}")
    assert (found.labels, found.drain, set(found.conditions)) == ({"a": "b"}, True, {"Ready"})


def test_unknown_fields_and_states_are_ignored() -> None:
    content = report(service("a", "asr", newField=1, state="Hibernating"), fromTheFuture={"x": 1}, schemaVersion=99)
    found = node_of(content=content).report
    assert found
    assert found.offers == {}


def test_only_running_services_of_a_ready_type_count() -> None:
    content = report(
        service("one", "asr", languages=["zh-CN"]),
        stopped("two", "asr", languages=["ja"]),
        service("three", "asr", languages=["de"]),
        service("x", "tts", languages=["fr"]),
    )
    content["capabilities"] = [
        {"type": "asr", "ready": True, "services": ["one", "two"]},
        {"type": "tts", "ready": False, "reason": "DeviceNotAccepted", "services": ["x"]},
    ]
    found = node_of(content=content).report
    assert found
    assert {type_: [o.service for o in offers] for type_, offers in found.offers.items()} == {"asr": ["one"]}
    assert found.offers["asr"][0].languages == {"zh"}
    assert (found.types["tts"].ready, found.types["tts"].reason) == (False, "DeviceNotAccepted")


@pytest.mark.parametrize(
    ("pair", "expected"),
    [
        ("zh-en", {"zh-en"}),
        ("ZH-CN-en-US", {"zh-en"}),
        ("pt-br-zh-hans", {"pt-zh"}),
        ("iw-in", {"he-id"}),
        ("auto-en", set()),
        ("zh", set()),
        ("", set()),
    ],
)
def test_pairs_of_a_rule_are_normalised(pair: str, expected: set[str]) -> None:
    rule = {"kind": "specific_pairs", "pairs": [pair], "blocked": [pair], "languages": ["zh_TW", "AUTO"]}
    found = node_of(content=report(service("m", "nmt", rules=[rule]))).report
    assert found
    rules = found.offers["nmt"][0].rules
    assert rules == (Rule("specific_pairs", frozenset({"zh"}), frozenset(expected), frozenset(expected)),)


def test_an_invalid_spec_of_a_pool_is_a_problem() -> None:
    found = decode(Kind.POOL, pool_object("p", sliceSize=0))
    assert isinstance(found, Pool)
    assert found.problem
    assert found.problem.startswith("spec.sliceSize")


@pytest.mark.parametrize("kind", [Kind.POOL, Kind.GENERATOR])
def test_an_object_is_paused_by_an_annotation_with_the_value_true(kind: Kind) -> None:
    make = {Kind.POOL: pool_object, Kind.GENERATOR: generator_object}[kind]
    found = [decode(kind, make("x", paused=paused)) for paused in (True, False)]
    assert [item.paused for item in found if isinstance(item, Pool | Generator)] == [True, False]
    body = make("x", paused=True)
    body["metadata"]["annotations"]["hotpool.dev/paused"] = "false"
    last = decode(kind, body)
    assert isinstance(last, Pool | Generator)
    assert not last.paused


# Edited slices still belong to their pool, so that they can be repaired (D10).


@pytest.mark.parametrize(
    ("edit", "pool", "labelled"),
    [
        ({}, "p", True),
        ({"labels": {}}, "p", False),
        ({"labels": {"hotpool.dev/pool": "q"}}, "p", False),
        ({"ownerReferences": []}, "p", True),
        ({"ownerReferences": [], "labels": None}, "p", False),
        ({"ownerReferences": [{"kind": "Deployment", "name": "d", "uid": "u"}], "labels": {}}, "p", False),
    ],
)
def test_a_slice_belongs_to_owner_or_label_or_name(edit: dict[str, Any], pool: str, *, labelled: bool) -> None:
    body = slice_object("p", 0, "a")
    body["metadata"] |= edit
    found = decode(Kind.SLICE, body)
    assert isinstance(found, Slice)
    assert (found.pool, found.labelled) == (pool, labelled)
    assert found.owner == ("uid-p" if "ownerReferences" not in edit else None)


def test_a_slice_without_owner_label_and_usable_name_is_a_decode_error() -> None:
    body = slice_object("p", 0)
    body["metadata"] |= {"name": "orphan", "labels": {}, "ownerReferences": []}
    assert isinstance(decode(Kind.SLICE, body), DecodeError)


@pytest.mark.parametrize(
    ("name", "renewed", "duration", "expected"),
    [
        ("hotpool-node-a", "t1", 45, Heartbeat("a", "i/1", "t1", 15.0)),
        ("hotpool-node-a", "t1", 1, Heartbeat("a", "i/1", "t1", 1.0)),
        ("hotpool-node-a", "t1", 2**31 - 1, Heartbeat("a", "i/1", "t1", 120.0)),
        ("hotpool-node-a", "t1", None, Heartbeat("a", "i/1", "t1", None)),
        ("hotpool-node-a", None, 45, None),
        ("hotpool-operator", "t1", 45, None),
        ("kube-node-a", "t1", 45, None),
    ],
)
def test_a_lease_is_decoded_to_a_heartbeat(
    name: str, renewed: str | None, duration: int | None, expected: Heartbeat | None
) -> None:
    assert decode_lease(name, "i/1", renewed, duration) == expected


def test_internal_and_external_addresses_of_a_v1_node_are_read_and_its_names_are_not() -> None:
    body = kube_node_object("n", addresses=["10.0.0.1", "2001:DB8::1", "odd"])
    body["status"]["addresses"].append({"type": "ExternalIP", "address": "203.0.113.7"})
    found = decode(Kind.KUBE_NODE, body)
    assert isinstance(found, KubeNode)
    assert found.addresses == ("10.0.0.1", "2001:db8::1", "203.0.113.7")


@pytest.mark.parametrize(
    ("more", "port"),
    [
        ({"port": 6007, "endpointReason": "NoAddress"}, 6007),
        ({"port": 6007, "endpointReason": "LoopbackOnly"}, None),
        ({"endpointReason": "NoAddress"}, None),
        ({"port": 6007, "endpointReason": "NoAddress", "pod": {"namespace": "a", "name": "p", "uid": "u"}}, None),
    ],
)
def test_a_service_that_lacks_nothing_but_an_address_keeps_its_port_for_an_address_that_people_write(
    more: dict[str, Any], port: int | None
) -> None:
    found = decode(Kind.NODE, node_object("n", report(service("w", "asr", endpoint=None, **more))))
    assert isinstance(found, Node)
    assert found.report
    endpoint = found.report.offers["asr"][0].endpoint
    assert (endpoint.port if endpoint else None) == port


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ([{"type": "asr", "maxConcurrent": 4}, {"type": "llm", "maxConcurrent": 1}], {"asr": 4, "llm": 1}),
        ([{"type": "asr", "maxConcurrent": 0}, {"type": "asr"}, {"maxConcurrent": 1}, "asr", None], {}),
        ({"asr": 4}, {}),
        (None, {}),
    ],
)
def test_limits_of_types_are_read_and_invalid_ones_are_left_out(limits: object, expected: dict[str, int]) -> None:
    body = node_object("n", report(service("w", "asr", maxConcurrent=8), service("m", "nmt")))
    body["spec"]["limits"] = limits
    found = decode(Kind.NODE, body)
    assert isinstance(found, Node)
    assert found.limits == expected
    assert found.report
    assert [offers[0].max_concurrent for offers in found.report.offers.values()] == [8, None]


@pytest.mark.parametrize("word", ["a|b", "a b", "a,b", "a\nb", "A", "", "é", "-a"])
def test_a_service_whose_id_or_type_no_catalogue_can_have_offers_nothing(word: str) -> None:
    """Its entry in Redis would read as several fields or services, or as those of another node (E7)."""
    found = decode(Kind.NODE, node_object("n", report(service(word, "asr"), service("w", word), service("w", "nmt"))))
    assert isinstance(found, Node)
    assert found.report
    assert [offer.service for offers in found.report.offers.values() for offer in offers] == ["w"]
