"""`hotpool diff`: nodes that would join and leave if manifests were applied (requirements F2, F3).

Reads only. `core.explain.dry_run` computes the difference.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import click

from hotpool.api.meta import timestamp
from hotpool.cli import json_output
from hotpool.cli.fleet_reader import FleetSnapshot, read_with_kube_nodes
from hotpool.cli.manifests import Manifest, ManifestError, load
from hotpool.cli.options import (
    FleetOptions,
    OutputFormat,
    fail,
    fleet_options,
    print_json,
)
from hotpool.cli.query import ERROR_CODES, run_query
from hotpool.common import exit_codes
from hotpool.common.cli_help import HelpSections, command, output_option
from hotpool.core.explain.dry_run import GeneratorChange, PoolChange, StoredFleet, compare_generator, compare_pool
from hotpool.core.model import CUSTOM_KINDS, Generator, Pool
from hotpool.kube.decode import DecodeError, decode
from hotpool.kube.reader import Reader

_HELP: Final = HelpSections(
    examples={
        "Nodes that would join and leave": "hotpool diff -f pool.yaml -n speech",
        "Several files, one of them from standard input": "kustomize build | hotpool diff -f - -f more.yaml",
        "Fail in a pipeline if a node would leave": (
            "hotpool diff -f pool.yaml -o json | jq -e '[.pools[].leaves[]] == []'"
        ),
    },
    codes={
        **ERROR_CODES,
        exit_codes.OK: "no difference: no node joins or leaves, no pool is created or removed",
        exit_codes.DIFFERENT: "there is a difference",
        exit_codes.USAGE: "wrong usage, or an invalid manifest",
    },
)


@dataclass(frozen=True, slots=True)
class Difference:
    """Changes of pools and generators."""

    pools: tuple[PoolChange, ...]
    generators: tuple[GeneratorChange, ...]

    @property
    def differs(self) -> bool:
        """True if members or pools would change."""
        return any(change.differs for change in self.pools) or any(change.differs for change in self.generators)


@command(_HELP)
@click.option(
    "--filename",
    "-f",
    "files",
    multiple=True,
    required=True,
    help="A file, or - for standard input; may be repeated.",
)
@fleet_options
@output_option(OutputFormat)
def diff(
    *,
    files: tuple[str, ...],
    namespace: str | None,
    context: str | None,
    kubeconfig: str | None,
    output: OutputFormat,
) -> None:
    """Show the nodes that would join and leave pools if manifests were applied.

    Compares each NodePool and NodePoolGenerator separately with the stored objects. The spec of a manifest replaces
    the whole stored spec. For a generator: the pools that would be created, changed, and removed after its grace,
    if the nodes do not change. Nothing is written, and the API server does not validate.
    """
    manifests = _load(files)
    fleet = FleetOptions.of(_namespace(manifests, namespace), kubeconfig, context)

    async def query(reader: Reader) -> Difference:
        return _compare(await read_with_kube_nodes(reader, *CUSTOM_KINDS), manifests)

    difference = run_query("diff", fleet, query)
    if output is OutputFormat.JSON:
        print_json(_to_json(difference))
    else:
        from hotpool.cli.render import diff

        diff.show(difference.pools, difference.generators)
    sys.exit(exit_codes.DIFFERENT if difference.differs else exit_codes.OK)


def _load(files: Sequence[str]) -> list[Manifest]:
    try:
        loaded = load(files)
    except ManifestError as error:
        fail("diff", str(error), exit_codes.USAGE)
    for item in loaded:
        if isinstance(item, str):
            click.echo(f"ignored: {item} (only NodePools and NodePoolGenerators are compared)", err=True)
    return [item for item in loaded if isinstance(item, Manifest)]


def _namespace(manifests: Sequence[Manifest], option: str | None) -> str | None:
    """Return the one namespace of the manifests and of -n; end the command if there are several, as kubectl does."""
    named = {manifest.namespace for manifest in manifests if manifest.namespace} | ({option} if option else set())
    if len(named) > 1:
        message = f"several namespaces in the manifests and -n: {', '.join(sorted(named))}; compare one at a time"
        fail("diff", message, exit_codes.USAGE)
    return next(iter(named), None)


def _compare(fleet: FleetSnapshot, manifests: Sequence[Manifest]) -> Difference:
    fleet.warn_unreadable()
    members = {name: fleet.members(name) for name in fleet.pools}
    stored = StoredFleet(fleet.views(), fleet.pools, fleet.generators, members)
    proposed = [_dry_run(fleet, manifest) for manifest in manifests]
    return Difference(
        tuple(compare_pool(item, stored) for item in proposed if isinstance(item, Pool)),
        tuple(
            compare_generator(item, stored, timestamp=timestamp()) for item in proposed if isinstance(item, Generator)
        ),
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


def _to_json(difference: Difference) -> dict[str, Any]:
    return {
        "differs": difference.differs,
        "pools": [json_output.pool_change(change) for change in difference.pools],
        "generators": [json_output.generator_change(change) for change in difference.generators],
    }
