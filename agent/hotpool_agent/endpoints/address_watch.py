"""Looks at the node's addresses with each heartbeat interval (requirement B13): I/O.

What may block runs in a thread with a time limit (requirement A12). A look that fails changes nothing.
"""

import asyncio
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, TypeVar
from urllib.parse import urlsplit

import structlog

from hotpool_agent.blocking import SingleFlightRunner
from hotpool_agent.endpoints import interfaces
from hotpool_agent.endpoints.checker import EndpointChecker
from hotpool_agent.endpoints.node_addresses import FoundAddresses, Inet6, configured, found, routed
from hotpool_agent.settings import Settings

T = TypeVar("T")

_LOG: Final = structlog.get_logger(__name__)
_LIMIT_SECONDS: Final = 2.0
_NO_ADDRESS_SECONDS: Final = 1.0
"""Longest time between two looks while the node has no address, as before a cable is plugged in."""


@dataclass(frozen=True, slots=True)
class _Machine:
    """Addresses and routes of this machine at one moment."""

    interfaces: frozenset[str]
    inet6: tuple[Inet6, ...]
    to_api_server: tuple[str, ...]
    by_default: tuple[str, ...]


class AddressWatch:
    """The addresses of the node, handed to the checker after each look.

    `advertised`: the catalogue's. `server`: URL of the API server; None before the client is open.
    """

    def __init__(
        self,
        settings: Settings,
        checker: EndpointChecker,
        advertised: Callable[[], Sequence[str]],
        server: Callable[[], str | None],
    ) -> None:
        self.problem: str | None = None
        """Reason why the last look failed."""
        self._settings = settings
        self._checker = checker
        self._advertised = advertised
        self._server = server
        self._runner = SingleFlightRunner()
        self._requested = asyncio.Event()
        self._server_addresses: tuple[str, ...] = ()
        """Addresses of the API server as last resolved."""

    def request(self) -> None:
        """Look again at once."""
        self._requested.set()

    async def run(self) -> None:
        """Look now, at each request and after each interval, until cancelled."""
        while True:
            self._requested.clear()
            try:
                await self._checker.use(await self._look())
            except TimeoutError:
                self._set_problem(f"the addresses of this machine cannot be read within {_LIMIT_SECONDS:g} s")
            except Exception as error:  # noqa: BLE001 - whatever it is, services keep the endpoints that they have
                self._set_problem(f"the addresses of this machine cannot be read: {type(error).__name__}: {error}")
            else:
                self._set_problem(None)
            with suppress(TimeoutError):
                async with asyncio.timeout(self._pause()):
                    await self._requested.wait()

    def _pause(self) -> float:
        has_address = self._checker.found is not None and self._checker.found.ips
        interval = float(self._settings.interval)
        return interval if has_address else min(interval, _NO_ADDRESS_SECONDS)

    async def _look(self) -> FoundAddresses:
        """Return the present addresses. Raises OSError or TimeoutError."""
        addresses = configured(self._advertised(), self._settings)
        if addresses:
            return found(addresses, await self._in_thread("interfaces", interfaces.interface_addresses))
        await self._resolve()
        machine = await self._in_thread("routes", lambda: _read_machine(self._server_addresses))
        return found(routed(machine.to_api_server, machine.by_default, machine.inet6), machine.interfaces)

    async def _resolve(self) -> None:
        """Resolve the API server's name. Without an answer the former addresses stay."""
        host = urlsplit(self._server() or "").hostname
        with suppress(OSError):  # TimeoutError, too
            if host:
                self._server_addresses = await self._in_thread(host, lambda: interfaces.addresses_of(host))

    async def _in_thread(self, key: Hashable, work: Callable[[], T]) -> T:
        async with asyncio.timeout(_LIMIT_SECONDS):
            return await self._runner.run(key, work)

    def _set_problem(self, problem: str | None) -> None:
        if problem and problem != self.problem:
            _LOG.warning("addresses of the node not read", error=problem)
        self.problem = problem


def _read_machine(server: Sequence[str]) -> _Machine:
    return _Machine(
        interfaces.interface_addresses(),
        interfaces.inet6_addresses(),
        _sources(server),
        _sources(interfaces.BEYOND),
    )


def _sources(addresses: Sequence[str]) -> tuple[str, ...]:
    """Return the source addresses of the routes to these, each once."""
    routes = (interfaces.source_of_route(address) for address in addresses)
    return tuple(dict.fromkeys(source for source in routes if source))
