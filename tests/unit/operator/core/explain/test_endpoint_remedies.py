"""Explanations why a type of a node has no endpoint, and remedies (requirements B13, F2)."""

from typing import Any

import pytest
from tests.support.builders import condition, node_object, pool, report, requires, service

from hotpool.cli import json_output
from hotpool.cli.fleet_reader import FleetSnapshot
from hotpool.core.explain.explain import Explanation, explain
from hotpool.core.explain.remedies import NodeFacts
from hotpool.core.matching import Criterion
from hotpool.core.model import Kind

POOL = pool("p", requires=requires("asr", endpoint="Required"))
LIVE = condition(lastTransitionTime="2026-11-24T10:00:00Z")
CLAIM = {"endpoint": {"addresses": [], "port": 6007, "appProtocol": "http"}}


def facts(*services: dict[str, Any], addresses: tuple[str, ...] = ("10.0.0.1",), **problems: str) -> NodeFacts:
    """Return a node as read by the command line; `problems`: messages of its conditions."""
    content = report(*services, addresses=[{"ip": ip, "source": "Route"} for ip in addresses])
    since = {"lastTransitionTime": "2026-11-24T11:00:00Z"}
    stored = [condition(type_, reason="r", message=text, **since) for type_, text in problems.items()]
    found = FleetSnapshot()
    assert found.add(Kind.NODE, node_object("n", content, conditions=[LIVE, *stored]))
    return found.facts("n")


def explained(*services: dict[str, Any], **more: Any) -> Explanation:
    return explain(facts(*services, **more), POOL, None)


def whisper(**more: Any) -> dict[str, Any]:
    return service("whisper", "asr", **more)


def test_an_endpoint_is_shown_with_its_addresses() -> None:
    found = explained(whisper(**CLAIM), addresses=("10.0.0.1", "2001:db8::1"))
    assert found.first_unmet is None
    requirement = next(item for item in found.requirements if item.criterion is Criterion.ENDPOINT)
    assert requirement.required == "an endpoint of type asr"
    assert requirement.observed == "whisper: 10.0.0.1:6007, [2001:db8::1]:6007"


@pytest.mark.parametrize(
    ("reason", "remedy"),
    [
        ("LoopbackOnly", "let whisper on n listen on 0.0.0.0 or ::, not on a loopback address alone"),
        ("Local", "remove scope: local of whisper from the catalogue of n"),
        ("NoPort", "declare the port of whisper on n"),
        ("NoAddress", "set advertise.addresses in the catalogue of n, or spec.addresses in nodecapability n"),
        ("Unchecked", "wait until the agent of n has connected to whisper"),
        (None, "upgrade the agent of n, which reports no endpoint of whisper"),
    ],
)
def test_each_reason_of_the_agent_has_its_own_remedy(reason: str | None, remedy: str) -> None:
    unmet = explained(whisper(endpoint=None, endpointReason=reason)).first_unmet
    assert unmet
    assert (unmet.criterion, unmet.remedies) == (Criterion.ENDPOINT, (remedy,))
    assert unmet.observed == f"whisper: {reason or 'not reported'}"


@pytest.mark.parametrize(
    ("problem", "remedy"),
    [
        (
            {"AddressConflict": "whisper at 10.0.0.1:6007 is claimed by edge-2, too, with an equal right"},
            (
                "if 10.0.0.1:6007 is whisper of n, set spec.addresses: [10.0.0.1] in nodecapability n, and look at "
                "the claims of edge-2; else set advertise.addresses in the catalogue of n"
            ),
        ),
        (
            {"AddressNotAllowed": "whisper at 10.0.0.1:6007 is in endpoints.deniedCIDRs (10.0.0.0/8)"},
            "change endpoints.deniedCIDRs, or set spec.addresses in nodecapability n to another address",
        ),
        (
            {
                "AddressNotAllowed": "whisper at 10.0.0.1:6007 is claimed by the node's agent alone, and "
                "endpoints.trustAgents is false"
            },
            "set spec.addresses: [10.0.0.1] in nodecapability n, or add its range to endpoints.allowedCIDRs",
        ),
        (
            {"AddressNotAllowed": "whisper at 10.0.0.1:6007 is link-local"},
            "set spec.addresses in nodecapability n to an address at which clients reach it",
        ),
    ],
)
def test_what_the_leader_stored_of_an_address_is_shown_with_its_remedy(problem: dict[str, str], remedy: str) -> None:
    unmet = explained(whisper(**CLAIM), **problem).first_unmet
    assert unmet
    text = next(iter(problem.values())).partition(":6007 ")[2]
    assert (unmet.observed, unmet.remedies) == (f"whisper: 10.0.0.1 {text}", (remedy,))
    assert unmet.since == "2026-11-24T11:00:00Z"


def test_one_usable_address_of_two_is_an_endpoint() -> None:
    found = explained(
        whisper(**CLAIM),
        addresses=("169.254.1.1", "10.0.0.1"),
        AddressNotAllowed="whisper at 169.254.1.1:6007 is link-local",
    )
    assert found.first_unmet is None


def test_a_service_of_the_type_that_lacks_an_attribute_does_not_count() -> None:
    wanted = {"type": "asr", "attributes": [{"key": "tier", "anyOf": ["gold"]}]}
    gold = whisper(attributes=[{"key": "tier", "values": ["gold"]}], endpoint=None, endpointReason="Local")
    spec = pool("p", requires={"types": [wanted], "endpoint": "Required"})
    unmet = explain(facts(gold, service("plain", "asr", **CLAIM)), spec, None).first_unmet
    assert unmet
    assert (unmet.criterion, unmet.observed) == (Criterion.ENDPOINT, "whisper: Local")


def test_json_of_a_node_has_every_ready_service_with_its_endpoint_or_the_reason() -> None:
    found = json_output.node_explanation(
        facts(whisper(**CLAIM), service("local", "nmt", endpoint=None, endpointReason="Local")), [], [], []
    )
    rows = {
        item["service"]: (item["addresses"], item["port"], item["appProtocol"], item["reason"])
        for item in found["endpoints"]
    }
    assert rows == {"local": ([], None, None, "Local"), "whisper": (["10.0.0.1"], 6007, "http", None)}
