"""Reads of what an address belongs to: pods that agents name, ranges of Services, and the API server itself (B13)."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from ipaddress import ip_network
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
from kubernetes.aio.client import ApiClient

from hotpool.common.ip_addresses import canonical_ip
from hotpool.core.endpoints.address_policy import Network
from hotpool.core.endpoints.pod_observations import NO_POD, PodAddresses
from hotpool.core.model import PodReference
from hotpool.kube.client import ApiUnavailable, asked, asked_if_present
from hotpool.kube.reader import READ_TIMEOUT, pages
from hotpool.kube.rest import WireMetadata, path, request

_NETWORKING: Final = "networking.k8s.io"
_ENDED: Final = frozenset({"Succeeded", "Failed"})
_DEFAULT_PORT: Final = 443


class _PodIp(msgspec.Struct):
    ip: str = ""


class _PodSpec(msgspec.Struct):
    nodeName: str = ""  # noqa: N815 - the wire's name.


class _PodStatus(msgspec.Struct):
    phase: str = ""
    podIPs: list[_PodIp] | None = None  # noqa: N815 - the wire's name.


class _Pod(msgspec.Struct):
    metadata: WireMetadata = msgspec.field(default_factory=WireMetadata)
    spec: _PodSpec = msgspec.field(default_factory=_PodSpec)
    status: _PodStatus = msgspec.field(default_factory=_PodStatus)


class _ServiceCidrSpec(msgspec.Struct):
    cidrs: list[str] | None = None


class _ServiceCidr(msgspec.Struct):
    spec: _ServiceCidrSpec = msgspec.field(default_factory=_ServiceCidrSpec)


class _ServerAddress(msgspec.Struct):
    serverAddress: str = ""  # noqa: N815 - the wire's name.


class _ApiVersions(msgspec.Struct):
    serverAddressByClientCIDRs: list[_ServerAddress] | None = None  # noqa: N815 - the wire's name.


_POD: Final = msgspec.json.Decoder(_Pod).decode
_SERVICE_CIDR: Final = msgspec.json.Decoder(_ServiceCidr).decode
_API_VERSIONS: Final = msgspec.json.Decoder(_ApiVersions).decode


@dataclass(frozen=True, slots=True)
class EndpointFacts:
    """Reads for the judgement of addresses. `server`: URL of the API server."""

    _api: ApiClient
    _server: str

    async def pod(self, pod: PodReference) -> PodAddresses:
        """Return node and addresses of a pod, NO_POD if it is gone, has ended or has another uid.

        Raises ApiUnavailable.
        """
        url_path = path("v1", "namespaces", pod.namespace, "pods", pod.name)
        pending = request(self._api, "GET", url_path, seconds=READ_TIMEOUT, decode=_POD)
        found: _Pod | None = await asked_if_present(pending, "get", f"pods/{pod.name}", "")
        if found is None or found.metadata.uid != pod.uid or found.status.phase in _ENDED:
            return NO_POD
        addresses = (canonical_ip(item.ip) for item in found.status.podIPs or ())
        return PodAddresses(found.spec.nodeName, tuple(ip for ip in addresses if ip))

    async def service_cidrs(self) -> tuple[Network, ...]:
        """Return the ranges of all ServiceCIDRs. Raises ApiUnavailable, also where the kind does not exist (404)."""
        url_path = path(f"{_NETWORKING}/v1", "servicecidrs")
        found = [text async for item in _items(self._api, url_path) for text in item.spec.cidrs or ()]
        return tuple(network for text in found if (network := _network(text)))

    async def api_servers(self) -> frozenset[tuple[str, int]]:
        """Return addresses and ports of the API server: as it states them, and as its URL does. Raises ApiUnavailable.

        A server behind others states only itself.
        """
        pending = request(self._api, "GET", "/api", seconds=READ_TIMEOUT, decode=_API_VERSIONS)
        versions: _ApiVersions = await asked(pending, "get", "api", "")
        stated = [item.serverAddress for item in versions.serverAddressByClientCIDRs or ()]
        return frozenset(
            [*_parsed(f"//{address}" for address in stated), *await _resolved(self._server)],
        )


async def _items(api: ApiClient, url_path: str) -> AsyncIterator[_ServiceCidr]:
    async for items, _ in pages(api, url_path, {}, _NETWORKING):
        for item in items:
            try:
                yield _SERVICE_CIDR(item)
            except msgspec.DecodeError as error:
                raise ApiUnavailable(f"cannot list servicecidrs: {error}", None, "list servicecidrs") from None


def _network(text: str) -> Network | None:
    try:
        return ip_network(text)
    except ValueError:
        return None


def _parsed(urls: Iterable[str]) -> Iterable[tuple[str, int]]:
    for url in urls:
        try:
            parts = urlsplit(url)
            ip, port = canonical_ip(parts.hostname or ""), parts.port or _DEFAULT_PORT
        except ValueError:
            continue
        if ip:
            yield ip, port


async def _resolved(server: str) -> list[tuple[str, int]]:
    """Return the addresses of the host in a URL; none while its name cannot be resolved."""
    parts = urlsplit(server)
    port = parts.port or _DEFAULT_PORT
    try:
        found: list[Any] = await asyncio.get_running_loop().getaddrinfo(
            parts.hostname, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP
        )
    except OSError:
        return []
    return [(ip, port) for _, _, _, _, address in found if (ip := canonical_ip(address[0]))]
