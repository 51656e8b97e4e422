"""Writer of the Services and EndpointSlices of pools. Raises as `kube.writer` (requirement D12)."""

from dataclasses import dataclass
from typing import Any, Final

from hotpool.core.model import Key, Kind, Meta, Pool
from hotpool.core.service_model import (
    DesiredService,
    DesiredSlice,
    StoredEndpointSlice,
    StoredService,
)
from hotpool.kube.decode_service import (
    ENDPOINT_SLICES,
    SERVICES,
    decode_endpoint_slice,
    decode_service,
    endpoint_slice_body,
    service_body,
)
from hotpool.kube.rest import MERGE, path
from hotpool.kube.writer import KubeWriter, preconditions
from hotpool.leadership import Leadership

Json = dict[str, Any]

_PLURALS: Final = {SERVICES: "services", ENDPOINT_SLICES: "endpointslices"}


@dataclass(frozen=True, slots=True)
class ServiceWriter:
    """Writer of one namespace. Each object carries the term of the leadership. Returns what is stored then."""

    _kube: KubeWriter
    _namespace: str
    _leadership: Leadership

    async def create_service(self, pool: Pool, service: DesiredService) -> StoredService | None:
        """Create the Service of a pool, which owns it."""
        body = service_body(pool, service, self._leadership.term)
        return decode_service(await self._send("create", SERVICES, "", pool, body))

    async def patch_service(self, pool: Pool, known: StoredService, service: DesiredService) -> StoredService | None:
        """Make a Service of this version as desired, except for its kind of cluster IP."""
        body = service_body(pool, service, self._term(known.term), to_patch=True)
        body["metadata"]["resourceVersion"] = str(known.meta.version)
        return decode_service(await self._send("patch", SERVICES, service.name, pool, body))

    async def create_slice(
        self, pool: Pool, service: Meta, name: str, content: DesiredSlice
    ) -> StoredEndpointSlice | None:
        """Create an EndpointSlice, which the Service owns."""
        body = endpoint_slice_body(pool, service, name, content, term=self._leadership.term, namespace=self._namespace)
        return decode_endpoint_slice(await self._send("create", ENDPOINT_SLICES, "", pool, body))

    async def patch_slice(
        self, pool: Pool, service: Meta, known: StoredEndpointSlice, content: DesiredSlice
    ) -> StoredEndpointSlice | None:
        """Make an EndpointSlice of this version as desired, except for its address type."""
        body = endpoint_slice_body(
            pool, service, known.meta.name, content, term=self._term(known.term), namespace=self._namespace
        )
        body["metadata"]["resourceVersion"] = str(known.meta.version)
        return decode_endpoint_slice(await self._send("patch", ENDPOINT_SLICES, known.meta.name, pool, body))

    async def delete(self, pool: str, known: StoredService | StoredEndpointSlice) -> None:
        """Delete the object with this uid and version."""
        version = SERVICES if isinstance(known, StoredService) else ENDPOINT_SLICES
        url_path = path(version, "namespaces", self._namespace, _PLURALS[version], known.meta.name)
        body = preconditions(known.meta.uid, str(known.meta.version))
        await self._kube.send("delete", "DELETE", url_path, Key(Kind.POOL, pool), body=body)

    def _term(self, stored: int | None) -> int:
        return max(self._leadership.term, stored or 0)

    async def _send(self, verb: str, version: str, name: str, pool: Pool, body: Json) -> Json:
        """Create an object, or patch the named one."""
        parts = ("namespaces", self._namespace, _PLURALS[version], *([name] if name else []))
        method, content_type = ("PATCH", MERGE) if name else ("POST", "application/json")
        key = Key(Kind.POOL, pool.meta.name)
        return await self._kube.send(verb, method, path(version, *parts), key, body=body, content_type=content_type)
