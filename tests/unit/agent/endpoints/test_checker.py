"""Checks of the endpoints of services, in simulated time over a simulated network (requirement B13)."""

import asyncio
from typing import Any, Final

import pytest
from tests.support.simulated_fleet import now, simulated

from hotpool.api.capability import NodeAddress
from hotpool_agent.catalogue.model import ServiceSpec
from hotpool_agent.endpoints import checker
from hotpool_agent.endpoints.checker import EndpointChecker
from hotpool_agent.endpoints.node_addresses import FoundAddresses
from hotpool_agent.probes.http_tcp import ProbeResult

H: Final = 15.0
OWN, OTHER, ELSEWHERE, V4, V6 = "10.0.0.5", "10.0.0.6", "203.0.113.7", "127.0.0.1", "::1"


class Network:
    """Sockets by address: open, refused (not in `open`), slow, hanging, or broken, which raises an unexpected error."""

    def __init__(self) -> None:
        self.open: set[str] = {V4}
        self.slow: set[str] = set()
        self.hanging: set[str] = set()
        self.broken = False
        self.tried: list[tuple[float, str]] = []
        self.connecting = 0
        self.most_connecting = 0

    async def connect(self, address: str, port: int) -> ProbeResult:
        assert port
        self.tried.append((now(), address))
        self.connecting += 1
        self.most_connecting = max(self.most_connecting, self.connecting)
        try:
            if self.broken:
                raise RuntimeError("broken")
            await asyncio.sleep(10**6 if address in self.hanging else 0.5 if address in self.slow else 0.001)
            return ProbeResult(ok=address in self.open)
        finally:
            self.connecting -= 1


class Reports:
    """The reporter: the times of changes, each with what would be reported then."""

    def __init__(self) -> None:
        self.checker: EndpointChecker
        self.changes: list[tuple[float, str]] = []

    def changed(self) -> None:
        self.changes.append((round(now(), 3), text(self.checker)))

    async def wait_withdrawn(self, service: str) -> None:
        raise AssertionError(service)


def spec(identifier: str = "s", **more: Any) -> ServiceSpec:
    return ServiceSpec.model_validate({"id": identifier, "type": "asr", "port": 6007} | more)


def text(found: EndpointChecker, service: ServiceSpec | None = None) -> str:
    """Return the addresses of the service's endpoint, or the reason why there is none."""
    endpoint, reason = found.endpoint(service or spec(), "Running")
    node = found.found.ips if found.found else ()
    return " ".join(endpoint.addresses or node) if endpoint else str(reason)


def node(*ips: str) -> FoundAddresses:
    addresses = tuple(NodeAddress(ip=ip, source="Route") for ip in ips)
    return FoundAddresses(addresses, frozenset(ips) - {ELSEWHERE})


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Network:
    found = Network()
    monkeypatch.setattr(checker, "tcp", found.connect)
    return found


def new_checker() -> tuple[EndpointChecker, Reports]:
    reports = Reports()
    reports.checker = EndpointChecker(H, reports)
    return reports.checker, reports


@simulated
async def test_a_service_that_answers_on_loopback_only_has_a_quick_verdict(network: Network) -> None:
    network.open = {V4}
    start, (found, reports) = now(), new_checker()
    await found.use(node(OWN))
    found.follow(spec(), "Running")
    assert text(found) == "Unchecked"
    await found.wait_checked("s")
    assert text(found) == "LoopbackOnly"
    assert now() - start < 0.2
    assert reports.changes[-1][1] == "LoopbackOnly"
    await found.close()


@simulated
async def test_a_service_that_answers_has_its_endpoint_at_once_and_is_checked_again_each_interval(
    network: Network,
) -> None:
    network.open |= {OWN}
    start, (found, reports) = now(), new_checker()
    await found.use(node(OWN))
    found.follow(spec(), "Running")
    await found.wait_checked("s")
    assert text(found) == OWN
    assert now() - start < 0.01
    await asyncio.sleep(3 * H)
    assert [(round(at - start), address) for at, address in network.tried] == [(0, OWN), (15, OWN), (30, OWN)]
    assert len(reports.changes) == 2, "the addresses, and the verdict"
    await found.close()


@simulated
async def test_an_address_that_no_longer_answers_is_withdrawn_after_two_failures_in_a_row(network: Network) -> None:
    network.open |= {OWN, OTHER}
    found, reports = new_checker()
    await found.use(node(OWN, OTHER))
    found.follow(spec(), "Running")
    await asyncio.sleep(1)
    network.open -= {OTHER}
    await asyncio.sleep(H)
    network.open |= {OTHER}
    await asyncio.sleep(H)
    assert text(found) == f"{OWN} {OTHER}", "one failure"
    network.open -= {OTHER}
    await asyncio.sleep(2 * H)
    assert text(found) == OWN
    network.open -= {OWN}
    await asyncio.sleep(2 * H)
    assert text(found) == "LoopbackOnly"
    network.open |= {OWN}
    await asyncio.sleep(H)
    assert text(found) == OWN
    assert [change for _, change in reports.changes[2:]] == [OWN, "LoopbackOnly", OWN]
    await found.close()


@simulated
async def test_a_service_that_answers_nowhere_keeps_what_is_known_of_it(network: Network) -> None:
    network.open = set()
    found, reports = new_checker()
    await found.use(node(OWN))
    found.follow(spec(), "Running")
    await found.wait_checked("s")
    await asyncio.sleep(2)
    assert text(found) == "Unchecked", "it does not listen yet"
    network.open |= {OWN, V6}
    await asyncio.sleep(4)
    assert text(found) == OWN
    network.open = set()
    await asyncio.sleep(10 * H)
    assert text(found) == OWN, "that it does not answer is a matter of its readiness"
    assert len(reports.changes) == 2
    await found.close()


@simulated
async def test_hanging_connections_are_few_and_delay_neither_other_services_nor_new_addresses(network: Network) -> None:
    network.hanging |= {OWN, OTHER}
    found, _ = new_checker()
    await found.use(node(OWN))
    for number in range(40):
        found.follow(spec(f"s{number}"), "Running")
    await asyncio.sleep(30)
    assert network.most_connecting <= 8
    assert {text(found, spec(f"s{number}")) for number in range(40)} == {"LoopbackOnly"}
    before = now()
    await found.use(node(OTHER))
    assert now() - before <= 2.5
    await asyncio.sleep(30)
    assert network.most_connecting <= 8
    assert {text(found, spec(f"s{number}")) for number in range(40)} == {"LoopbackOnly"}
    await found.close()
    assert network.connecting == 0, "no socket is left"


@simulated
async def test_a_new_address_is_reported_once_and_with_its_verdict(network: Network) -> None:
    network.open |= {OWN, OTHER}
    found, reports = new_checker()
    await found.use(node(OWN))
    found.follow(spec(), "Running")
    await asyncio.sleep(1)
    reports.changes.clear()
    await found.use(node(OTHER))
    await asyncio.sleep(H - 2)
    assert [change for _, change in reports.changes] == [OTHER]
    await found.use(node(OTHER))
    assert len(reports.changes) == 1, "the same again"
    network.open -= {OWN}
    await found.use(node(OWN))
    assert [change for _, change in reports.changes] == [OTHER, "LoopbackOnly"], "the former verdict is forgotten"
    await found.close()


@simulated
async def test_addresses_that_change_during_a_check_are_checked_at_once_and_soon_again(network: Network) -> None:
    """The check hangs for a second, in which the address changes; the service answers nowhere for four more."""
    network.open = {OWN}
    found, _ = new_checker()
    await found.use(node(OWN))
    found.follow(spec(), "Running")
    await asyncio.sleep(10 * H + 1)
    network.open, network.hanging = set(), {OWN}
    await asyncio.sleep(H - 0.9)
    assert network.connecting == 1
    await found.use(node(OTHER))
    assert text(found) == "Unchecked"
    await asyncio.sleep(4)
    network.open |= {OTHER}
    await asyncio.sleep(H / 2)
    assert text(found) == OTHER
    await found.close()


@simulated
async def test_an_address_that_returns_is_checked_again_although_it_went_during_a_check(network: Network) -> None:
    network.open |= {OWN, OTHER}
    found, reports = new_checker()
    await found.use(node(OWN, OTHER))
    found.follow(spec(), "Running")
    await found.wait_checked("s")
    network.slow |= {OTHER}
    await asyncio.sleep(H + 0.1)
    assert network.connecting == 1
    await found.use(node(OWN))
    await asyncio.sleep(1)
    assert network.connecting == 0
    network.open -= {OTHER}
    reports.changes.clear()
    await found.use(node(OWN, OTHER))
    assert [change for _, change in reports.changes] == [OWN]
    await found.close()


@simulated
async def test_only_addresses_of_the_agents_own_network_are_connected_to(network: Network) -> None:
    found, _ = new_checker()
    await found.use(node(ELSEWHERE))
    found.follow(spec(), "Running")
    found.follow(spec("local", scope="local"), "Running")
    found.follow(spec("portless", port=None), "Running")
    found.follow(spec("starting"), "Starting")
    await asyncio.sleep(2 * H)
    assert network.tried == []
    assert text(found) == ELSEWHERE
    assert text(found, spec("local", scope="local")) == "Local"
    assert found.endpoint(spec("starting"), "Starting") == (None, None)
    await found.close()


@simulated
async def test_a_service_that_ends_or_changes_its_port_is_unchecked_again(network: Network) -> None:
    network.open |= {OWN}
    found, _ = new_checker()
    await found.use(node(OWN))
    found.follow(spec(), "Running")
    await found.wait_checked("s")
    network.hanging |= {OWN}
    found.follow(spec(port=6008), "Running")
    assert text(found, spec(port=6008)) == "Unchecked"
    await asyncio.sleep(0.5)
    assert network.connecting == 1
    found.follow(spec(port=6008), "Stopping")
    await asyncio.sleep(0.01)
    assert network.connecting == 0, "the connection is closed with its service"
    await found.wait_checked("s")
    await found.close()


@simulated
async def test_services_are_not_checked_before_the_addresses_are_known(network: Network) -> None:
    network.open |= {OWN}
    found, _ = new_checker()
    found.follow(spec(), "Running")
    waiting = asyncio.create_task(found.wait_checked("s"))
    await asyncio.sleep(5 * H)
    assert (text(found), network.tried, waiting.done()) == ("Unchecked", [], False)
    await found.use(node())
    await waiting
    assert (text(found), network.tried) == ("NoAddress", [])
    await found.close()


@simulated
async def test_a_first_verdict_is_awaited_however_late_the_addresses_are_known(network: Network) -> None:
    network.open |= {OWN}
    found, _ = new_checker()
    found.follow(spec(), "Running")
    await asyncio.sleep(5 * H + 1)
    found.found = node(OWN)
    await asyncio.gather(found.wait_checked("s"), found.use(node(OWN, OTHER)))
    assert text(found) == OWN
    await found.close()


@simulated
async def test_an_unexpected_error_does_not_end_the_checks(network: Network) -> None:
    network.broken = True
    found, _ = new_checker()
    await found.use(node(OWN))
    found.follow(spec(), "Running")
    await found.wait_checked("s")
    assert text(found) == "Unchecked"
    network.broken, network.open = False, {OWN}
    await asyncio.sleep(H)
    assert text(found) == OWN
    await found.close()
