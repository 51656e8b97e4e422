"""`hotpool diff`: who would join and leave if documents were applied (requirements F2, F3).

Reads only; the answer is `core.explain.dry_run`'s.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from hotpool.api.meta import timestamp
from hotpool.cli import json_output
from hotpool.cli.fleet_reader import FleetSnapshot, read_with_kube_nodes
from hotpool.cli.manifests import Manifest, ManifestError, Other, load
from hotpool.cli.options import (
    ContextOption,
    FleetOptions,
    KubeconfigOption,
    NamespaceOption,
    OutputFormat,
    OutputOption,
    fail,
    print_json,
)
from hotpool.cli.query import run_query
from hotpool.common import cli_help
from hotpool.core.explain.dry_run import GeneratorChange, PoolChange, StoredFleet, compare_generator, compare_pool
from hotpool.core.model import CUSTOM_KINDS, Generator, Pool
from hotpool.kube.decode import DecodeError, decode
from hotpool.kube.reader import Reader

_HELP = cli_help.command(
    {
        "Who would join and leave": "hotpool diff -f pool.yaml -n speech",
        "Several files, one of them from standard input": "kustomize build | hotpool diff -f - -f more.yaml",
        "Fail in a pipeline when somebody would leave": (
            "hotpool diff -f pool.yaml -o json | jq -e '[.pools[].leaves[]] == []'"
        ),
    },
    {
        cli_help.OK: "no difference: nobody joins or leaves, no pool is made or removed",
        cli_help.DIFFERENT: "there is a difference",
        cli_help.USAGE: "wrong usage, or a document that is not valid",
    },
)


@dataclass(frozen=True, slots=True)
class Difference:
    """What would happen."""

    pools: tuple[PoolChange, ...]
    generators: tuple[GeneratorChange, ...]

    @property
    def differs(self) -> bool:
        """Whether anything would be seen of it."""
        return any(change.differs for change in self.pools) or any(change.differs for change in self.generators)


def register(app: typer.Typer) -> None:
    """Add the command to the program."""

    @app.command(cls=_HELP)
    def diff(
        files: Annotated[list[str], typer.Option("--filename", "-f", help="A file, or -; may be repeated.")],
        *,
        namespace: NamespaceOption = None,
        context: ContextOption = None,
        kubeconfig: KubeconfigOption = None,
        output: OutputOption = OutputFormat.TEXT,
    ) -> None:
        """Show who would join and leave pools if documents were applied.

        Documents are NodePools and NodePoolGenerators; each is compared by itself with what is stored. Its spec counts
        as the whole new spec. Of a generator: which pools would be made, changed and removed when its grace is over, if
        the nodes stay as they are. Nothing is written, and the API server does not validate.
        """
        documents = _load(files)
        place = FleetOptions.of(_namespace(documents, namespace), kubeconfig, context)

        async def ask(reader: Reader) -> Difference:
            return _compare(await read_with_kube_nodes(reader, *CUSTOM_KINDS), documents)

        found = run_query("diff", place, ask)
        if output is OutputFormat.JSON:
            print_json(_to_json(found))
        else:
            from hotpool.cli.render import diff

            diff.show(found.pools, found.generators)
        raise typer.Exit(cli_help.DIFFERENT if found.differs else cli_help.OK)


def _load(files: Sequence[str]) -> list[Manifest]:
    try:
        found = load(files)
    except ManifestError as error:
        fail("diff", str(error), cli_help.USAGE)
    for item in found:
        if isinstance(item, Other):
            typer.echo(f"left out: {item.what} (only NodePools and NodePoolGenerators are compared)", err=True)
    return [item for item in found if isinstance(item, Manifest)]


def _namespace(documents: Sequence[Manifest], said: str | None) -> str | None:
    """As kubectl: what the documents say must be one namespace, and that of -n where that is given."""
    named = {document.namespace for document in documents if document.namespace} | ({said} if said else set())
    if len(named) > 1:
        words = f"the documents and -n name several namespaces: {', '.join(sorted(named))}; compare one at a time"
        fail("diff", words, cli_help.USAGE)
    return next(iter(named), None)


def _compare(fleet: FleetSnapshot, documents: Sequence[Manifest]) -> Difference:
    fleet.warn_unreadable()
    members = {name: fleet.members(name) for name in fleet.pools}
    stored = StoredFleet(fleet.views(), fleet.pools, fleet.generators, members)
    proposed = [_dry_run(fleet, document) for document in documents]
    return Difference(
        tuple(compare_pool(item, stored) for item in proposed if isinstance(item, Pool)),
        tuple(
            compare_generator(item, stored, timestamp=timestamp()) for item in proposed if isinstance(item, Generator)
        ),
    )


def _dry_run(fleet: FleetSnapshot, document: Manifest) -> Pool | Generator:
    """The object as it would be stored: that which is stored, with the document's spec and annotations."""
    stored = fleet.bodies.get((document.kind, document.name), {})
    metadata = {"uid": "", "resourceVersion": "0", **(stored.get("metadata") or {}), "name": document.name}
    annotations = {**(metadata.get("annotations") or {}), **(document.body["metadata"].get("annotations") or {})}
    body = {**stored, "metadata": {**metadata, "annotations": annotations}, "spec": _spec(stored, document)}
    seen = decode(document.kind, body)
    if not isinstance(seen, Pool | Generator):
        why = seen.reason if isinstance(seen, DecodeError) else "it is of another kind"
        fail("diff", f"{document.kind}/{document.name}: {why}", cli_help.USAGE)
    return seen


def _spec(stored: Any, document: Manifest) -> Any:
    """What a generator wrote into its pool stays there."""
    made = (stored.get("spec") or {}).get("generated")
    spec = document.body.get("spec") or {}
    return {"generated": made, **spec} if made else spec


def _to_json(found: Difference) -> dict[str, Any]:
    return {
        "differs": found.differs,
        "pools": [json_output.pool_change(change) for change in found.pools],
        "generators": [json_output.generator_change(change) for change in found.generators],
    }
