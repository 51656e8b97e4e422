"""Looks at the node's addresses, with name servers and interfaces that hang or fail (requirements A12, B13)."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest
from tests.support.agent_run import eventually

from hotpool_agent.endpoints import address_watch, interfaces
from hotpool_agent.endpoints.address_watch import AddressWatch
from hotpool_agent.endpoints.checker import EndpointChecker
from hotpool_agent.settings import Settings

ROUTES: Final = {"10.0.0.1": "10.0.0.5", interfaces.BEYOND[0]: "192.168.1.5"}
"""Destination → source address: the API server is reached by another way than the rest of the world."""


class Machine:
    """The kernel and the name servers of a machine. `hangs`: no name is resolved until it is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.hangs: threading.Event | None = None
        self.resolutions = 0
        self.looks = 0
        self.routes = dict(ROUTES)
        self.error: Exception | None = None
        monkeypatch.setattr(interfaces, "addresses_of", self.resolve)
        monkeypatch.setattr(interfaces, "source_of_route", self.routes.get)
        monkeypatch.setattr(interfaces, "interface_addresses", self.read)
        monkeypatch.setattr(interfaces, "inet6_addresses", tuple)

    def resolve(self, host: str) -> tuple[str, ...]:
        assert host == "api.example"
        self.resolutions += 1
        if self.hangs:
            self.hangs.wait()
        return ("10.0.0.1",)

    def read(self) -> frozenset[str]:
        self.looks += 1
        if self.error:
            raise self.error
        return frozenset()


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr(address_watch, "_LIMIT_SECONDS", 60.0)
    return Machine(monkeypatch)


class Reports:
    """A reporter that counts changes."""

    def __init__(self) -> None:
        self.changes = 0

    def changed(self) -> None:
        self.changes += 1

    async def wait_withdrawn(self, service: str) -> None:
        raise AssertionError(service)


@asynccontextmanager
async def watching(**settings: Any) -> AsyncIterator[tuple[AddressWatch, EndpointChecker, Reports]]:
    """Run a watch of a machine whose API server is api.example."""
    chosen = Settings(**{"advertise": "", "interval": 120, **settings})
    reports = Reports()
    checker = EndpointChecker(chosen.interval, reports)
    watch = AddressWatch(chosen, checker, tuple, lambda: "https://api.example:6443")
    task = asyncio.create_task(watch.run())
    try:
        yield watch, checker, reports
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def look_again(watch: AddressWatch, machine: Machine) -> None:
    """Request a look, and wait until it reads the interfaces, which it does last."""
    before = machine.looks
    watch.request()
    await eventually(lambda: machine.looks > before)


def ips(checker: EndpointChecker) -> tuple[str, ...]:
    return checker.found.ips if checker.found else ()


async def test_a_name_server_that_hangs_has_one_thread_and_the_default_route_counts(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.hangs = threading.Event()
    monkeypatch.setattr(address_watch, "_LIMIT_SECONDS", 0.05)
    async with watching() as (watch, checker, _):
        await eventually(lambda: ips(checker) == ("192.168.1.5",))
        for _ in range(3):
            await look_again(watch, machine)
        assert machine.resolutions == 1
        monkeypatch.setattr(address_watch, "_LIMIT_SECONDS", 60.0)
        machine.hangs.set()
        watch.request()
        await eventually(lambda: ips(checker) == ("10.0.0.5",))
        monkeypatch.setattr(address_watch, "_LIMIT_SECONDS", 0.05)
        machine.hangs = threading.Event()
        await look_again(watch, machine)
        assert ips(checker) == ("10.0.0.5",), "the former address of the API server counts"
        machine.hangs.set()


async def test_a_look_that_fails_keeps_the_addresses_and_is_a_problem(machine: Machine) -> None:
    async with watching() as (watch, checker, reports):
        await eventually(lambda: ips(checker) == ("10.0.0.5",))
        for error, text in ((OSError("no buffers"), "OSError: no buffers"), (ValueError("odd"), "ValueError: odd")):
            machine.error = error
            watch.request()
            await eventually(lambda text=text: text in (watch.problem or ""))  # type: ignore[misc]
        machine.error = None
        watch.request()
        await eventually(lambda: watch.problem is None)
        assert ips(checker) == ("10.0.0.5",)
        assert reports.changes == 1


async def test_a_machine_without_a_route_is_looked_at_again_soon(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(address_watch, "_NO_ADDRESS_SECONDS", 0.01)
    machine.routes.clear()
    async with watching() as (_, checker, _):
        await eventually(lambda: checker.found is not None)
        assert ips(checker) == ()
        machine.routes |= ROUTES
        await eventually(lambda: ips(checker) == ("10.0.0.5",))


async def test_addresses_that_are_given_need_no_route(machine: Machine) -> None:
    async with watching(pod_ips="10.1.0.7") as (_, checker, _):
        await eventually(lambda: ips(checker) == ("10.1.0.7",))
        assert machine.resolutions == 0
