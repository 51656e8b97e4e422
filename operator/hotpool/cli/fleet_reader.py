"""Objects of a fleet, read from the API server and decoded into the values of the core. Reads only."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import click
from pydantic import ValidationError

from hotpool.api import meta
from hotpool.api.capability import Report as WireReport
from hotpool.api.capability import Service
from hotpool.cli.options import CommandError
from hotpool.common import exit_codes
from hotpool.core.cluster_cache import ClusterCache
from hotpool.core.endpoints.stored_decisions import with_stored_endpoints
from hotpool.core.explain.remedies import NodeFacts
from hotpool.core.model import Generator, Kind, KubeNode, Member, Node, NodeView, Pool, Report, Slice
from hotpool.kube.decode import DecodeError, decode
from hotpool.kube.reader import Reader

Json = Mapping[str, Any]


@dataclass(slots=True)
class FleetSnapshot:
    """Objects of a fleet at the time of reading."""

    bodies: dict[tuple[Kind, str], Json] = field(default_factory=dict)
    """Undecoded objects by kind and name."""
    nodes: dict[str, Node] = field(default_factory=dict)
    kube_nodes: dict[str, KubeNode] = field(default_factory=dict)
    """v1 Nodes, if the operator watches them."""
    pools: dict[str, Pool] = field(default_factory=dict)
    generators: dict[str, Generator] = field(default_factory=dict)
    unreadable: list[DecodeError] = field(default_factory=list)
    _slices: dict[str, list[Slice]] = field(default_factory=dict)

    def add(self, kind: Kind, body: Json) -> bool:
        """Decode and add one object. Return False if it cannot be decoded."""
        decoded = decode(kind, body)
        match decoded:
            case DecodeError():
                self.unreadable.append(decoded)
                return False
            case Node():
                self.nodes[decoded.meta.name] = decoded
            case KubeNode():
                self.kube_nodes[decoded.meta.name] = decoded
            case Pool():
                self.pools[decoded.meta.name] = decoded
            case Slice():
                self._slices.setdefault(decoded.pool, []).append(decoded)
            case Generator():
                self.generators[decoded.meta.name] = decoded
        self.bodies[kind, decoded.meta.name] = body
        return True

    def add_required(self, kind: Kind, body: Json) -> None:
        """Decode and add an object. Raises CommandError if it cannot be decoded."""
        if not self.add(kind, body):
            error = self.unreadable[-1]
            raise CommandError(f"{kind}/{error.name} cannot be read: {error.reason}", exit_codes.UNAVAILABLE)

    def views(self) -> dict[str, NodeView]:
        """Return the views of all nodes for matching, by name."""
        return self._views(self.nodes.values())

    @property
    def pools_with_slices(self) -> Iterable[str]:
        """Names of the pools that have slices."""
        return self._slices

    def members(self, pool: str) -> dict[str, Member]:
        """Return the members in the slices of a pool, by node."""
        slices = self._slices.get(pool, ())
        return {member.node: member for item in slices for member in item.members}

    def services(self, node: str) -> tuple[Service, ...]:
        """Return the reported services of a node; none if the report is invalid."""
        report = (self.bodies[Kind.NODE, node].get("status") or {}).get("report")
        try:
            return WireReport.model_validate(report).services if report else ()
        except ValidationError:  # the cause is in the `problem` of the node
            return ()

    def facts(self, node: str) -> NodeFacts:
        """Return view, services and potential report of one node."""
        services = self.services(node)
        potential = _potential(self.bodies[Kind.NODE, node]) if services else None
        return NodeFacts(self._views([self.nodes[node]])[node], services, potential)

    def _views(self, nodes: Iterable[Node]) -> dict[str, NodeView]:
        """Return the views by name as before the gate, with liveness and endpoints of the stored conditions (C4)."""
        cache = ClusterCache(kube_nodes=self.kube_nodes)
        for node in nodes:
            cache.upsert(node, 0.0)
        return {name: with_stored_endpoints(record.view) for name, record in cache.nodes.items()}

    def warn_unreadable(self) -> None:
        """Print a warning for each object that cannot be decoded."""
        for error in self.unreadable:
            click.echo(f"warning: {error.kind}/{error.name} cannot be read: {error.reason}", err=True)


async def read(reader: Reader, *kinds: Kind) -> FleetSnapshot:
    """Return all objects of these kinds."""
    snapshot = FleetSnapshot()
    for kind in kinds:
        async for body in reader.each(kind):
            snapshot.add(kind, body)
    return snapshot


async def read_node(reader: Reader, snapshot: FleetSnapshot, body: Json) -> None:
    """Add one node that was read already, and the v1 Node of its name if the operator watches it."""
    snapshot.add_required(Kind.NODE, body)
    if await reader.follows_nodes() and (kube := await reader.get(Kind.KUBE_NODE, body["metadata"]["name"])):
        snapshot.add_required(Kind.KUBE_NODE, kube)


async def read_with_kube_nodes(reader: Reader, *kinds: Kind) -> FleetSnapshot:
    """Return all objects of these kinds, and all v1 Nodes if the operator watches them: matching needs them."""
    snapshot = await read(reader, *kinds)
    if await reader.follows_nodes():
        async for body in reader.each(Kind.KUBE_NODE):
            snapshot.add(Kind.KUBE_NODE, body)
    return snapshot


async def read_slices(reader: Reader, snapshot: FleetSnapshot, pool: str) -> None:
    """Add the slices of one pool."""
    async for body in reader.each(Kind.SLICE, labels=f"{meta.POOL_LABEL}={pool}"):
        snapshot.add(Kind.SLICE, body)


def _potential(body: Json) -> Report | None:
    """Return the report of the node as if all its services were Running, to find types that a start would add."""
    report = body["status"]["report"]
    services = [{**service, "state": "Running"} for service in report.get("services") or []]
    ids: dict[str, list[str]] = {}
    for service in services:
        ids.setdefault(service["type"], []).append(service["id"])
    capabilities = [{"type": type_, "ready": True, "services": names} for type_, names in ids.items()]
    content = {**report, "services": services, "capabilities": capabilities}
    decoded = decode(Kind.NODE, {**body, "status": {"report": content}})
    return decoded.report if isinstance(decoded, Node) else None
