"""Reads of the Services and EndpointSlices of pools, by their label. Must not decide or write."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from hotpool.clock import Clock
from hotpool.core.model import Identity
from hotpool.core.service_model import ServiceObjects, StoredEndpointSlice, StoredService
from hotpool.kube.client import ApiUnavailable
from hotpool.kube.decode_service import (
    ENDPOINT_SLICES,
    POOL_LABEL,
    SERVICES,
    decode_endpoint_slice,
    decode_service,
)
from hotpool.kube.reader import Reader

RIGHTS: Final = tuple(
    (verb, group, resource)
    for group, resource in (("", "services"), ("discovery.k8s.io", "endpointslices"))
    for verb in ("list", "get", "create", "patch", "delete")
)
"""Verb, group and resource of all rights that Services need."""
_RESOURCES: Final = ((SERVICES, "services"), (ENDPOINT_SLICES, "endpointslices"))


@dataclass(frozen=True, slots=True)
class ServiceReader:
    """Reads of one namespace. Each raises ApiUnavailable."""

    _reader: Reader
    _clock: Clock

    async def missing_right(self) -> str:
        """Return the first right that this account lacks, or an empty string."""
        for verb, group, resource in RIGHTS:
            if not await self._reader.may(verb, group, resource):
                return f"{verb} {resource}" + (f".{group}" if group else "")
        return ""

    async def objects(self, pool: str | None = None) -> dict[str, ServiceObjects]:
        """Return pool → its objects, of one pool or of all."""
        selector = POOL_LABEL if pool is None else f"{POOL_LABEL}={pool}"
        found = defaultdict[str, ServiceObjects](ServiceObjects)
        async for body in self._reader.each_of(SERVICES, "services", labelSelector=selector):
            if service := decode_service(body):
                found[service.pool].services[service.meta.name] = service
            await self._clock.pace()
        async for body in self._reader.each_of(ENDPOINT_SLICES, "endpointslices", labelSelector=selector):
            if item := decode_endpoint_slice(body):
                found[item.pool].slices[item.meta.name] = item
            await self._clock.pace()
        return dict(found)

    async def identities(self) -> Mapping[str, set[Identity]]:
        """Return pool → uid and version of its objects. The content of the objects is not sent."""
        found = defaultdict[str, set[Identity]](set)
        for version, plural in _RESOURCES:
            async for known in self._reader.metadata_of(version, plural, labelSelector=POOL_LABEL):
                found[known["labels"][POOL_LABEL]].add(Identity(known["uid"], int(known["resourceVersion"])))
                await self._clock.pace()
        return found

    async def service(self, name: str) -> StoredService | None:
        """Return the Service of this name, whoever it belongs to, or None."""
        body = await self._reader.get_of(SERVICES, "services", name)
        if body is None:
            return None
        found = decode_service(body)
        if found is None:
            raise ApiUnavailable(f"Service {name} has no identity")
        return found

    async def slice(self, name: str) -> StoredEndpointSlice | None:
        """Return the EndpointSlice of this name, whoever it belongs to, or None."""
        body = await self._reader.get_of(ENDPOINT_SLICES, "endpointslices", name)
        return decode_endpoint_slice(body) if body else None
