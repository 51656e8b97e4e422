"""What the command line reads of a fleet, in the core's values: the objects themselves, through the operator's decode.

Reads only, decides nothing.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import typer
from pydantic import ValidationError

from hotpool.api import meta
from hotpool.api.capability import Report as WireReport
from hotpool.api.capability import Service
from hotpool.cli.options import CommandError
from hotpool.common import cli_help
from hotpool.core.cluster_cache import ClusterCache
from hotpool.core.explain.explain import Membership
from hotpool.core.explain.remedies import NodeFacts
from hotpool.core.model import Generator, Kind, KubeNode, Node, NodeView, Pool, Report, Slice
from hotpool.kube.decode import DecodeError, decode
from hotpool.kube.reader import Reader

Json = Mapping[str, Any]


@dataclass(slots=True)
class FleetSnapshot:
    """A fleet as it was read."""

    bodies: dict[tuple[Kind, str], Json] = field(default_factory=dict)
    """The objects as on the wire, by kind and name."""
    nodes: dict[str, Node] = field(default_factory=dict)
    kube_nodes: dict[str, KubeNode] = field(default_factory=dict)
    """v1 Nodes, where the operator follows them."""
    pools: dict[str, Pool] = field(default_factory=dict)
    generators: dict[str, Generator] = field(default_factory=dict)
    unreadable: list[DecodeError] = field(default_factory=list)
    _slices: dict[str, list[Slice]] = field(default_factory=dict)

    def add(self, kind: Kind, body: Json) -> bool:
        """Take in one object; False where it cannot be read."""
        seen = decode(kind, body)
        match seen:
            case DecodeError():
                self.unreadable.append(seen)
                return False
            case Node():
                self.nodes[seen.meta.name] = seen
            case KubeNode():
                self.kube_nodes[seen.meta.name] = seen
            case Pool():
                self.pools[seen.meta.name] = seen
            case Slice():
                self._slices.setdefault(seen.pool, []).append(seen)
            case Generator():
                self.generators[seen.meta.name] = seen
        self.bodies[kind, seen.meta.name] = body
        return True

    def add_required(self, kind: Kind, body: Json) -> None:
        """Take in the object that was asked for; the command ends where it cannot be read."""
        if not self.add(kind, body):
            lost = self.unreadable[-1]
            raise CommandError(f"{kind}/{lost.name} cannot be read: {lost.reason}", cli_help.UNAVAILABLE)

    def views(self) -> dict[str, NodeView]:
        """The nodes as the judge sees them."""
        return self._views(self.nodes.values())

    @property
    def pools_with_slices(self) -> Iterable[str]:
        """The pools that slices name."""
        return self._slices

    def members(self, pool: str) -> dict[str, Membership]:
        """What the slices of a pool say."""
        slices = self._slices.get(pool, ())
        return {member.node: Membership(member.state, member.since) for item in slices for member in item.members}

    def services(self, node: str) -> tuple[Service, ...]:
        """The services that a node reports."""
        raw = (self.bodies[Kind.NODE, node].get("status") or {}).get("report")
        try:
            return WireReport.model_validate(raw).services if raw else ()
        except ValidationError:  # the node's `problem` says why
            return ()

    def facts(self, node: str) -> NodeFacts:
        """All that is known of one node."""
        services = self.services(node)
        potential = _potential(self.bodies[Kind.NODE, node]) if services else None
        return NodeFacts(self._views([self.nodes[node]])[node], services, potential)

    def _views(self, nodes: Iterable[Node]) -> dict[str, NodeView]:
        """As a state sees them before its gate: liveness is what the stored conditions say (requirement C4)."""
        state = ClusterCache(kube_nodes=self.kube_nodes)
        for node in nodes:
            state.upsert(node, 0.0)
        return {name: record.view for name, record in state.nodes.items()}

    def warn_unreadable(self) -> None:
        """Say which objects could not be read."""
        for rejection in self.unreadable:
            typer.echo(f"warning: {rejection.kind}/{rejection.name} cannot be read: {rejection.reason}", err=True)


async def read(reader: Reader, *kinds: Kind) -> FleetSnapshot:
    """All objects of these kinds."""
    found = FleetSnapshot()
    for kind in kinds:
        async for body in reader.each(kind):
            found.add(kind, body)
    return found


async def read_node(reader: Reader, found: FleetSnapshot, body: Json) -> None:
    """One node that was read already, and the v1 Node of its name where the operator follows it."""
    found.add_required(Kind.NODE, body)
    if await reader.follows_nodes() and (kube := await reader.get(Kind.KUBE_NODE, body["metadata"]["name"])):
        found.add_required(Kind.KUBE_NODE, kube)


async def read_with_kube_nodes(reader: Reader, *kinds: Kind) -> FleetSnapshot:
    """All objects of these kinds, and all v1 Nodes where the operator follows them, so that nodes can be judged."""
    found = await read(reader, *kinds)
    if await reader.follows_nodes():
        async for body in reader.each(Kind.KUBE_NODE):
            found.add(Kind.KUBE_NODE, body)
    return found


async def read_slices(reader: Reader, found: FleetSnapshot, pool: str) -> None:
    """The slices of one pool."""
    async for body in reader.each(Kind.SLICE, labels=f"{meta.POOL_LABEL}={pool}"):
        found.add(Kind.SLICE, body)


def _potential(body: Json) -> Report | None:
    """The report of the node, did every service of it run and count: what starting a service could add."""
    report = body["status"]["report"]
    services = [{**service, "state": "Running"} for service in report.get("services") or []]
    ids: dict[str, list[str]] = {}
    for service in services:
        ids.setdefault(service["type"], []).append(service["id"])
    capabilities = [{"type": type_, "ready": True, "services": found} for type_, found in ids.items()]
    content = {**report, "services": services, "capabilities": capabilities}
    seen = decode(Kind.NODE, {**body, "status": {"report": content}})
    return seen.report if isinstance(seen, Node) else None
