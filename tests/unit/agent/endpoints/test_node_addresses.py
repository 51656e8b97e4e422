"""Order of the sources of a node's addresses (requirement B13)."""

from collections.abc import Sequence
from typing import Any

import pytest
from pydantic import ValidationError

from hotpool.api.capability import NodeAddress
from hotpool_agent.endpoints.node_addresses import Inet6, configured, found, routed
from hotpool_agent.settings import Settings

POD: dict[str, Any] = {"pod_ips": "10.1.0.7,fd00:1::7", "host_ips": "10.9.0.3"}


def texts(addresses: Sequence[NodeAddress]) -> list[str]:
    return [f"{address.ip} {address.source}" for address in addresses]


@pytest.mark.parametrize(
    ("catalogue", "given", "expected"),
    [
        (["203.0.113.9"], {"advertise": "203.0.113.7, 2001:DB8::7", **POD}, ["203.0.113.7 ", "2001:db8::7 "]),
        (["203.0.113.9"], POD, ["203.0.113.9 "]),
        ([], POD, ["10.1.0.7 Pod", "fd00:1::7 Pod"]),
        ([], {**POD, "host_network": "true"}, ["10.9.0.3 Node"]),
        ([], {"pod_ips": "", "host_ips": "", "host_network": True}, []),
        ([], {}, []),
    ],
)
def test_people_come_first_then_kubernetes_then_routes(
    catalogue: list[str], given: dict[str, Any], expected: list[str]
) -> None:
    chosen = configured(catalogue, Settings(**{"advertise": "", **given}))
    assert texts(chosen) == [text + "Catalogue" if text.endswith(" ") else text for text in expected]


def test_an_address_of_kubernetes_that_is_none_is_left_out_and_at_most_four_are_kept() -> None:
    settings = Settings(advertise="", pod_ips="x,::ffff:10.1.0.1,10.1.0.1,10.1.0.2,10.1.0.3,10.1.0.4,10.1.0.5")
    assert [item.ip for item in configured((), settings)] == ["10.1.0.1", "10.1.0.2", "10.1.0.3", "10.1.0.4"]


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("10.0.0.1:80", "without a zone, port or prefix length"),
        ("fe80::1%eth0", "without a zone"),
        ("0.0.0.0", "no client can connect"),  # noqa: S104 - nothing is bound
        ("::", "no client can connect"),
        ("224.0.0.1", "no client can connect"),
        ("169.254.1.1", "no client can connect"),
        ("10.0.0.1,10.0.0.2,10.0.0.3,10.0.0.4,10.0.0.5", "at most 4 addresses"),
    ],
)
def test_an_address_that_no_client_can_use_is_not_advertised(given: str, reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        Settings(advertise=given)


LOOPBACK, REMOTE = ("127.0.0.1", "::1"), ("10.0.0.5", "2001:db8:1::5")


@pytest.mark.parametrize(
    ("to_api_server", "by_default", "expected"),
    [
        (("10.0.0.5",), ("192.168.1.5", "2001:db8:1::5"), ["10.0.0.5"]),
        (LOOPBACK, REMOTE, ["10.0.0.5", "2001:db8:1::5"]),
        ((), REMOTE, ["10.0.0.5", "2001:db8:1::5"]),
        (("127.0.0.1",), ("169.254.7.7", "fe80::5"), []),
        (("0.0.0.0", "::", "224.0.0.9", "ff02::1"), (), []),  # noqa: S104 - nothing is bound
        (LOOPBACK, LOOPBACK, []),
    ],
)
def test_the_default_routes_count_for_an_api_server_on_this_machine(
    to_api_server: tuple[str, ...], by_default: tuple[str, ...], expected: list[str]
) -> None:
    assert texts(routed(to_api_server, by_default, ())) == [f"{ip} Route" for ip in expected]


def inet6(ip: str, flags: int = 0, interface: str = "eth0", prefix_length: int = 64) -> Inet6:
    return Inet6(ip, interface, prefix_length, flags)


@pytest.mark.parametrize("flags", [0x01, 0x20, 0x21, 0x08, 0x40])
def test_a_temporary_or_deprecated_address_is_replaced_by_a_lasting_one_of_its_network(flags: int) -> None:
    soon_gone = inet6("2001:db8:1::ffff", flags)
    others = [
        inet6("2001:db8:1::a", interface="eth1"),
        inet6("fd00::b"),
        inet6("2001:db8:1::d", 0x20),
        inet6("2001:db8:1::c", 0x80),
    ]
    assert texts(routed([soon_gone.ip], (), [soon_gone, *others])) == ["2001:db8:1::c Route"]
    assert routed([soon_gone.ip], (), [soon_gone, *others[:3]]) == ()


def test_an_address_is_the_agents_own_if_an_interface_of_its_network_has_it() -> None:
    given = [NodeAddress(ip=ip, source="Catalogue") for ip in ("10.0.0.5", "203.0.113.7", "127.0.0.2")]
    node = found(given, {"10.0.0.5", "127.0.0.1", "::1"})
    assert (node.ips, node.own) == (("10.0.0.5", "203.0.113.7", "127.0.0.2"), frozenset({"10.0.0.5", "127.0.0.2"}))
