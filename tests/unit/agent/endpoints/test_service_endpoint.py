"""Endpoint of a service, and the verdict on each address (requirement B13)."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotpool.api.capability import NodeAddress
from hotpool_agent.catalogue.model import ServiceSpec
from hotpool_agent.endpoints.node_addresses import FoundAddresses
from hotpool_agent.endpoints.service_endpoint import (
    NEVER_CHECKED,
    AddressCheck,
    after_try,
    endpoint_of,
    pod_endpoint,
)

YES, NO = AddressCheck(answers=True), AddressCheck(answers=False, failures=2)
V4, OTHER_V4, V6, ELSEWHERE = "10.0.0.5", "10.0.0.6", "2001:db8:1::5", "203.0.113.7"


def spec(**more: Any) -> ServiceSpec:
    return ServiceSpec.model_validate({"id": "s", "type": "asr", "port": 6007} | more)


def tried(course: str) -> AddressCheck:
    """Return the check after tries: `+` connected, `-` refused and answered elsewhere, `?` refused everywhere."""
    check = NEVER_CHECKED
    for one in course:
        check = after_try(check, connected=one == "+", alive=one != "?")
    return check


def node(*ips: str) -> FoundAddresses:
    addresses = tuple(NodeAddress(ip=ip, source="Route") for ip in ips)
    return FoundAddresses(addresses, frozenset(ips) - {ELSEWHERE})


@pytest.mark.parametrize(
    ("service", "where", "checks", "expected"),
    [
        (spec(), node(V4), {V4: YES}, ()),
        (spec(), node(V4, V6), {V4: YES, V6: YES}, ()),
        (spec(), node(V4, V6), {V4: YES, V6: NO}, (V4,)),
        (spec(), node(V4, V6), {V4: NO, V6: YES}, (V6,)),
        (spec(), node(V4, V6), {V4: YES}, (V4,)),
        (spec(), node(V4, OTHER_V4, V6), {V4: YES, OTHER_V4: YES, V6: NO}, (V4,)),
        (spec(), node(ELSEWHERE), {}, ()),
        (spec(), node(ELSEWHERE, V4), {V4: NO}, (ELSEWHERE,)),
        (spec(), node(V4), {V4: NO}, "LoopbackOnly"),
        (spec(), node(V4), {V4: AddressCheck(failures=1)}, "Unchecked"),
        (spec(), node(V4, V6), {V4: NO}, "Unchecked"),
        (spec(), None, {V4: YES}, "Unchecked"),
        (spec(), node(), {}, "NoAddress"),
        (spec(port=None), node(V4), {}, "NoPort"),
        (spec(scope="local"), node(V4), {V4: YES}, "Local"),
    ],
)
def test_the_endpoint_has_the_addresses_at_which_the_service_answers(
    service: ServiceSpec, where: FoundAddresses | None, checks: dict[str, AddressCheck], expected: tuple[str, ...] | str
) -> None:
    endpoint, reason = endpoint_of(service, where, checks)
    assert (endpoint.addresses if endpoint else reason) == expected
    assert (endpoint is None) == (reason is not None)


def test_the_endpoint_has_the_port_and_the_protocol_of_the_service() -> None:
    endpoint, _ = endpoint_of(spec(appProtocol="kubernetes.io/ws"), node(V4), {V4: YES})
    assert endpoint
    assert (endpoint.port, endpoint.app_protocol) == (6007, "kubernetes.io/ws")


@pytest.mark.parametrize(
    ("service", "addresses", "expected"),
    [
        (spec(), ("10.1.0.7", "fd00:1::7"), ("10.1.0.7", "fd00:1::7")),
        (spec(), ("10.1.0.7", "10.1.0.8", "fd00:1::7"), ("10.1.0.7", "fd00:1::7")),
        (spec(), (), "NoAddress"),
        (spec(port=None), ("10.1.0.7",), "NoPort"),
    ],
)
def test_a_pod_has_its_own_addresses(
    service: ServiceSpec, addresses: tuple[str, ...], expected: tuple[str, ...] | str
) -> None:
    endpoint, reason = pod_endpoint(service, addresses)
    assert (endpoint.addresses if endpoint else reason) == expected


@pytest.mark.parametrize(
    ("verdict", "tries"),
    [
        ("answers", ["+", "+-", "+-+-", "--+", "+????"]),
        ("does not answer", ["--", "+--", "-?-", "--?"]),
        ("unknown", ["", "-", "????", "?-?"]),
    ],
)
def test_two_failures_in_a_row_while_the_service_answers_elsewhere_are_a_verdict(
    verdict: str, tries: list[str]
) -> None:
    found = {course: tried(course).answers for course in tries}
    assert found == dict.fromkeys(tries, {"answers": True, "does not answer": False, "unknown": None}[verdict])


@given(st.text("+-?", max_size=12))
def test_no_address_counts_without_a_connection(course: str) -> None:
    assert tried(course).answers is not True or "+" in course
