"""`hotpool diff`: nodes that would join and leave if manifests were applied (requirements F2, F3). Reads only."""

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import click

from hotpool.cli.options import ERROR_CODES, FleetOptions, OutputFormat, fleet_options, print_json
from hotpool.common import exit_codes
from hotpool.common.cli_help import HelpSections, command, output_option

if TYPE_CHECKING:
    from hotpool.cli.differences import Difference
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
    fleet: FleetOptions,
    output: OutputFormat,
) -> None:
    """Show the nodes that would join and leave pools if manifests were applied.

    Compares each NodePool and NodePoolGenerator separately with the stored objects. The spec of a manifest replaces
    the whole stored spec. For a generator: the pools that would be created, changed, and removed after its grace,
    if the nodes do not change. Nothing is written, and the API server does not validate.
    """
    from hotpool.cli.differences import compare, load_manifests, only_namespace
    from hotpool.cli.fleet_reader import read_with_kube_nodes
    from hotpool.cli.query import run_query
    from hotpool.core.model import CUSTOM_KINDS

    manifests = load_manifests(files)
    fleet = replace(fleet, given=only_namespace(manifests, fleet.given))

    async def query(reader: "Reader") -> "Difference":
        return compare(await read_with_kube_nodes(reader, *CUSTOM_KINDS), manifests)

    pools, generators = run_query("diff", fleet, query)
    differs = any(change.differs for change in pools) or any(change.differs for change in generators)
    if output is OutputFormat.JSON:
        from hotpool.cli import json_output

        changes = {
            "pools": [json_output.pool_change(change) for change in pools],
            "generators": [json_output.generator_change(change) for change in generators],
        }
        print_json({"differs": differs, **changes})
    else:
        from hotpool.cli.render import diff

        diff.show(pools, generators)
    sys.exit(exit_codes.DIFFERENT if differs else exit_codes.OK)
