"""Differences that manifests would make (requirements F2, F3). `core.explain.dry_run` computes them."""

from collections.abc import Sequence
from typing import Any

import click

from hotpool.api.meta import timestamp
from hotpool.cli.fleet_reader import FleetSnapshot
from hotpool.cli.manifests import Manifest, ManifestError, load
from hotpool.cli.options import fail
from hotpool.common import exit_codes
from hotpool.core.explain.dry_run import GeneratorChange, PoolChange, StoredFleet, compare_generator, compare_pool
from hotpool.core.model import Generator, Pool
from hotpool.kube.decode import DecodeError, decode

Difference = tuple[list[PoolChange], list[GeneratorChange]]
"""Changes of pools and of generators."""


def load_manifests(files: Sequence[str]) -> list[Manifest]:
    """Return the manifests of pools and generators in files; end the command if one is invalid."""
    try:
        loaded = load(files)
    except ManifestError as error:
        fail("diff", str(error), exit_codes.USAGE)
    for item in loaded:
        if isinstance(item, str):
            click.echo(f"ignored: {item} (only NodePools and NodePoolGenerators are compared)", err=True)
    return [item for item in loaded if isinstance(item, Manifest)]


def only_namespace(manifests: Sequence[Manifest], option: str | None) -> str | None:
    """Return the one namespace of the manifests and of -n; end the command if there are several, as kubectl does."""
    named = {manifest.namespace for manifest in manifests if manifest.namespace} | ({option} if option else set())
    if len(named) > 1:
        message = f"several namespaces in the manifests and -n: {', '.join(sorted(named))}; compare one at a time"
        fail("diff", message, exit_codes.USAGE)
    return next(iter(named), None)


def compare(fleet: FleetSnapshot, manifests: Sequence[Manifest]) -> Difference:
    """Return the changes that the manifests would make."""
    fleet.warn_unreadable()
    members = {name: fleet.members(name) for name in fleet.pools}
    stored = StoredFleet(fleet.views(), fleet.pools, fleet.generators, members)
    proposed = [_dry_run(fleet, manifest) for manifest in manifests]
    generators = [item for item in proposed if isinstance(item, Generator)]
    return (
        [compare_pool(item, stored) for item in proposed if isinstance(item, Pool)],
        [compare_generator(item, stored, timestamp=timestamp()) for item in generators],
    )


def _dry_run(fleet: FleetSnapshot, manifest: Manifest) -> Pool | Generator:
    """Return the object as it would be stored: the stored one with spec and annotations of the manifest."""
    stored = fleet.bodies.get((manifest.kind, manifest.name), {})
    metadata = {"uid": "", "resourceVersion": "0", **(stored.get("metadata") or {}), "name": manifest.name}
    annotations = {**(metadata.get("annotations") or {}), **(manifest.body["metadata"].get("annotations") or {})}
    body = {**stored, "metadata": {**metadata, "annotations": annotations}, "spec": _spec(stored, manifest)}
    decoded = decode(manifest.kind, body)
    if not isinstance(decoded, Pool | Generator):
        reason = decoded.reason if isinstance(decoded, DecodeError) else "another kind"
        fail("diff", f"{manifest.kind}/{manifest.name}: {reason}", exit_codes.USAGE)
    return decoded


def _spec(stored: Any, manifest: Manifest) -> Any:
    """Return the spec of the manifest with the stored `generated`, which belongs to the generator of the pool."""
    generated = (stored.get("spec") or {}).get("generated")
    spec = manifest.body.get("spec") or {}
    return {"generated": generated, **spec} if generated else spec
