"""Differences that manifests would make (requirements F2, F3). `core.explain.dry_run` computes them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import click

from hotpool.api.meta import timestamp
from hotpool.cli.fleet_reader import FleetSnapshot, read_with_kube_nodes
from hotpool.cli.manifests import Manifest, ManifestError, load
from hotpool.cli.options import CommandError, fail
from hotpool.cli.server_dry_run import DryRun, check_served, dry_run
from hotpool.cli.undeclared import undeclared
from hotpool.common import exit_codes
from hotpool.core.explain.dry_run import GeneratorChange, PoolChange, StoredFleet, compare_generator, compare_pool
from hotpool.core.model import CUSTOM_KINDS, Generator, Pool
from hotpool.kube.client import Connection
from hotpool.kube.decode import DecodeError, decode
from hotpool.kube.reader import Reader


@dataclass(frozen=True, slots=True)
class Difference:
    """Changes of pools and of generators. `warning`: why the API server did not check the manifests, or empty."""

    pools: Sequence[PoolChange]
    generators: Sequence[GeneratorChange]
    undeclared: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Pool without members → sentences about what it requires and no service declares."""
    warning: str = ""

    @property
    def differs(self) -> bool:
        """True if a change is visible."""
        return any(item.differs for item in self.pools) or any(item.differs for item in self.generators)


def load_manifests(command: str, files: Sequence[str]) -> list[Manifest]:
    """Return the manifests in files and folders; end the command if one is invalid."""
    try:
        return load(files)
    except ManifestError as error:
        fail(command, str(error), exit_codes.USAGE)


def only_namespace(command: str, manifests: Sequence[Manifest], option: str | None) -> str | None:
    """Return the one namespace of the manifests and of -n; end the command if there are several, as kubectl does."""
    ours = (manifest.namespace for manifest in manifests if manifest.kind)
    named = {namespace for namespace in ours if namespace} | ({option} if option else set())
    if len(named) > 1:
        message = f"several namespaces in the manifests and -n: {', '.join(sorted(named))}; compare one at a time"
        fail(command, message, exit_codes.USAGE)
    return next(iter(named), None)


async def proposals(
    connection: Connection, namespace: str, manifests: Sequence[Manifest]
) -> tuple[FleetSnapshot, list[Pool | Generator], DryRun]:
    """Return the fleet, and the pools and generators of manifests as the API server would store them.

    Raises CommandError for what it refuses or does not serve, and ApiUnavailable.
    """
    await check_served(connection, manifests)
    fleet = await read_with_kube_nodes(Reader(connection.api, namespace), *CUSTOM_KINDS)
    fleet.warn_unreadable()
    result = await dry_run(connection, namespace, manifests, fleet.bodies)
    return fleet, [_decoded(manifest, body) for manifest, body in result.bodies], result


def compare(fleet: FleetSnapshot, proposed: Sequence[Pool | Generator], warning: str) -> Difference:
    """Return the changes that the objects would make."""
    members = {name: fleet.members(name) for name in fleet.pools}
    stored = StoredFleet(fleet.views(), fleet.pools, fleet.generators, members)
    pools = [(item, compare_pool(item, stored)) for item in proposed if isinstance(item, Pool)]
    generators = [item for item in proposed if isinstance(item, Generator)]
    return Difference(
        [change for _, change in pools],
        [compare_generator(item, stored, timestamp=timestamp()) for item in generators],
        dict(_undeclared(fleet, pools)),
        warning,
    )


def _undeclared(
    fleet: FleetSnapshot, pools: Sequence[tuple[Pool, PoolChange]]
) -> Iterator[tuple[str, tuple[str, ...]]]:
    for pool, change in pools:
        if not change.members_after:
            yield change.name, undeclared(pool, map(fleet.services, fleet.nodes))


def _decoded(manifest: Manifest, body: dict[str, Any]) -> Pool | Generator:
    """Return the object. Raises CommandError if this program cannot read what the API server would store."""
    metadata = {"uid": "", "resourceVersion": "0", **body["metadata"]}
    decoded = decode(manifest.kind, {**body, "metadata": metadata}) if manifest.kind else None
    if isinstance(decoded, Pool | Generator) and not decoded.problem:
        return decoded
    reason = decoded.reason if isinstance(decoded, DecodeError) else getattr(decoded, "problem", "another kind")
    raise CommandError(f"{manifest.place}: this program cannot read it: {reason}", exit_codes.USAGE)


def warn_ignored(manifests: Sequence[Manifest]) -> None:
    """Print a line for each manifest that affects no pool."""
    for item in manifests:
        if item.kind is None:
            text = f"ignored: {item.api_version} {item.kind_name} {item.name}"
            click.echo(f"{text} (only NodePools and NodePoolGenerators are compared)", err=True)
