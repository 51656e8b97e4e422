"""Addresses of the cluster itself, which are never endpoints: ranges of Services and the API server (B13).

Read before the first listing, and then from time to time, because ServiceCIDRs can be added.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final, TypeVar

import structlog

from hotpool.core.endpoints.address_policy import AddressPolicy, Network
from hotpool.kube.client import ApiUnavailable
from hotpool.kube.endpoint_facts import EndpointFacts

T = TypeVar("T")

log = structlog.get_logger(__name__)

REFRESH_SECONDS: Final = 300.0
_FORBIDDEN: Final = 403
_NOT_FOUND: Final = 404


class ClusterAddresses:
    """The policy for addresses: the settings, with what the cluster states of itself."""

    def __init__(self, facts: EndpointFacts, settings: AddressPolicy) -> None:
        self._facts = facts
        self._settings = settings
        self._ranges: tuple[Network, ...] = ()
        self._servers: frozenset[tuple[str, int]] = frozenset()
        self._warned = False

    async def read(self) -> AddressPolicy:
        """Return the policy of now. What cannot be read stays as it was. Raises ApiUnavailable without a response."""
        ranges = await self._readable(self._facts.service_cidrs)
        if ranges is not None:
            self._ranges = ranges
        elif not (self._settings.service_cidrs or self._warned):
            self._warned = True
            log.warning(
                "the ranges of Services are not known, so that an agent may claim the address of one",
                advice="set endpoints.serviceCIDRs, or let this account list servicecidrs.networking.k8s.io",
            )
        self._servers |= await self._readable(self._facts.api_servers) or frozenset()
        return self.policy

    @property
    def policy(self) -> AddressPolicy:
        """The settings, with what was read last."""
        return replace(
            self._settings,
            service_cidrs=tuple(dict.fromkeys((*self._settings.service_cidrs, *self._ranges))),
            api_servers=self._servers,
        )

    async def _readable(self, read: Callable[[], Awaitable[T]]) -> T | None:
        try:
            return await read()
        except ApiUnavailable as error:
            if error.status in {_FORBIDDEN, _NOT_FOUND}:
                return None
            raise

    async def follow(self, apply: Callable[[AddressPolicy], Awaitable[None]]) -> None:
        """Read again from time to time until cancelled, and apply each change."""
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            before = self.policy
            try:
                policy = await self.read()
            except ApiUnavailable as error:
                log.info("the addresses of the cluster are not read again", error=str(error))
            else:
                if policy != before:
                    await apply(policy)
