"""Checks that the services of the catalogue answer at the node's own addresses (requirement B13): I/O.

Connects only to addresses of interfaces in the agent's own network namespace, a few at a time. Must not decide what a
service's readiness is, and delays neither probes nor reports.
"""

import asyncio
from collections.abc import Collection, Iterable
from contextlib import suppress
from typing import Final

import structlog

from hotpool.api.capability import NodeAddress, ServiceState
from hotpool_agent.catalogue.model import ServiceSpec
from hotpool_agent.endpoints.node_addresses import FoundAddresses
from hotpool_agent.endpoints.service_endpoint import (
    FAILURES,
    NEVER_CHECKED,
    AddressCheck,
    EndpointState,
    after_try,
    endpoint_of,
)
from hotpool_agent.notifier import Notifier
from hotpool_agent.probes.addresses import LOOPBACKS
from hotpool_agent.probes.http_tcp import tcp
from hotpool_agent.reporting_port import Reporting

_LOG: Final = structlog.get_logger(__name__)
_CONNECT_SECONDS: Final = 1.0
"""Time for a connection to an address of this machine."""
_MAX_CONNECTING: Final = 8
_QUICK_SECONDS: Final = 0.05
"""Pause before the second try of a first verdict. Further pauses double, up to H."""
_NEW_ADDRESS_SECONDS: Final = 2.5
"""Longest delay of a report about new addresses, in which the services are checked there."""
_NONE: Final = EndpointState(None, None)


class _Checked:
    """A service that is checked, and what is known of its port at each address."""

    def __init__(self, port: int, connecting: asyncio.Semaphore) -> None:
        self.port = port
        self.checks: dict[str, AddressCheck] = {}
        self.rounds = 0
        """Number of completed rounds of tries."""
        self._connecting = connecting

    def unknown(self, addresses: Iterable[str]) -> list[str]:
        """Return the addresses without a verdict."""
        return [ip for ip in addresses if self.checks.get(ip, NEVER_CHECKED).answers is None]

    def forget(self, addresses: Collection[str]) -> None:
        """Forget the verdicts on these addresses."""
        self.checks = {ip: check for ip, check in self.checks.items() if ip not in addresses}

    async def check(self, addresses: Collection[str]) -> bool:
        """Try each address once. Return True if a verdict changed."""
        connected = dict(zip(addresses, await asyncio.gather(*map(self._connects, addresses)), strict=True))
        alive = any(connected.values()) or (bool(addresses) and await self._answers_on_loopback())
        before = dict(self.checks)
        for ip, success in connected.items():
            self.checks[ip] = after_try(self.checks.get(ip, NEVER_CHECKED), connected=success, alive=alive)
        return any(before.get(ip, NEVER_CHECKED).answers is not self.checks[ip].answers for ip in addresses)

    async def check_new(self, addresses: Collection[str]) -> None:
        """Bring about a first verdict on addresses, by as many quick tries as a verdict takes."""
        for _ in range(FAILURES):
            if unknown := self.unknown(addresses):
                await self.check(unknown)
                await asyncio.sleep(_QUICK_SECONDS if self.unknown(unknown) else 0)

    async def _answers_on_loopback(self) -> bool:
        return any(await asyncio.gather(*map(self._connects, LOOPBACKS)))

    async def _connects(self, address: str) -> bool:
        try:
            async with self._connecting, asyncio.timeout(_CONNECT_SECONDS):
                return (await tcp(address, self.port)).ok
        except TimeoutError:
            return False


class EndpointChecker:
    """The checks of all services that run, the node's addresses, and the endpoints that follow.

    `interval`: H in seconds, the time between two checks of a service.
    """

    def __init__(self, interval: float, reporting: Reporting) -> None:
        self.found: FoundAddresses | None = None
        """Addresses of the node; None: they are not known yet."""
        self._interval = interval
        self._reporting = reporting
        self._connecting = asyncio.Semaphore(_MAX_CONNECTING)
        self._services: dict[str, _Checked] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._ending: set[asyncio.Task[None]] = set()
        self._round_done = Notifier()
        self._addresses_changed = Notifier()

    @property
    def addresses(self) -> tuple[NodeAddress, ...]:
        """Addresses of the node as reported."""
        return self.found.addresses if self.found else ()

    @property
    def _own(self) -> frozenset[str]:
        return self.found.own if self.found else frozenset()

    def follow(self, spec: ServiceSpec, state: ServiceState) -> None:
        """Check the service from now on while it runs and is for remote clients, else no longer."""
        port = spec.port if state == "Running" and spec.scope == "node" else None
        known = self._services.get(spec.id)
        if known and known.port == port:
            return
        self.leave(spec.id)
        if port is not None:
            service = self._services[spec.id] = _Checked(port, self._connecting)
            self._tasks[spec.id] = asyncio.create_task(self._check_forever(spec.id, service))

    def leave(self, identifier: str) -> None:
        """Forget the service, and close its connections."""
        self._services.pop(identifier, None)
        if task := self._tasks.pop(identifier, None):
            task.cancel()
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)
        self._round_done.notify()

    def endpoint(self, spec: ServiceSpec, state: ServiceState) -> EndpointState:
        """Return the endpoint of a service of the catalogue, or the reason why it has none though it runs."""
        if state != "Running":
            return _NONE
        known = self._services.get(spec.id)
        return endpoint_of(spec, self.found, known.checks if known else {})

    async def wait_checked(self, identifier: str) -> None:
        """Return when a first verdict on the service was tried for, or it is not checked."""
        await self._round_done.wait_for(lambda: self._is_checked(identifier))

    async def use(self, found: FoundAddresses) -> None:
        """Report these addresses, after the services were checked there: a changed address is one report."""
        if found == self.found:
            return
        former = self._own
        new, gone = found.own - former, former - found.own
        for service in self._services.values():
            service.forget(new)  # a round that had begun may have had a verdict since they were gone
        with suppress(TimeoutError):
            async with asyncio.timeout(_NEW_ADDRESS_SECONDS):
                await asyncio.gather(*(service.check_new(new) for service in self._services.values()))
        _LOG.info("addresses of the node", addresses=found.ips)
        self.found = found
        for service in self._services.values():
            service.forget(gone)
        self._addresses_changed.notify()
        self._reporting.changed()

    async def close(self) -> None:
        """End all checks."""
        for identifier in list(self._services):
            self.leave(identifier)
        await asyncio.gather(*self._ending, return_exceptions=True)

    def _is_checked(self, identifier: str) -> bool:
        service = self._services.get(identifier)
        if service is None or self.found is None:
            return service is None
        return service.rounds >= FAILURES or (service.rounds > 0 and not service.unknown(self.found.own))

    async def _check_forever(self, identifier: str, service: _Checked) -> None:
        await self._wait_addresses()
        own, pause = self._own, _QUICK_SECONDS
        while True:
            try:
                changed = await service.check(own)
            except Exception as error:  # noqa: BLE001 - the check goes on, whatever it is
                _LOG.error("internal error", task=f"{identifier}: endpoint", exc_info=error)
                changed = False
            service.rounds += 1
            self._round_done.notify()
            if changed:
                self._reporting.changed()
            if own == self._own:
                await self._addresses_changed.wait(pause if service.unknown(own) else self._interval)
                pause = min(2 * pause, self._interval)
            if own != self._own:  # also if they changed during the check
                own, pause = self._own, _QUICK_SECONDS

    async def _wait_addresses(self) -> None:
        await self._addresses_changed.wait_for(lambda: self.found is not None)
