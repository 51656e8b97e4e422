"""`hotpool diff`: nodes that would join and leave if manifests were applied (requirements F2, F3). Reads only."""

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from hotpool.cli.options import ERROR_CODES, FleetOptions, OutputFormat, fleet_options, manifest_option, print_json
from hotpool.common import exit_codes
from hotpool.common.cli_help import HelpSections, command, output_option

if TYPE_CHECKING:
    from hotpool.cli.differences import Difference
    from hotpool.kube.client import Connection

_HELP: Final = HelpSections(
    examples={
        "Nodes that would join and leave": "hotpool diff -f pool.yaml -n speech",
        "A folder, and standard input": "kustomize build | hotpool diff -f pools/ -f -",
        "Fail in a pipeline if a node would leave": (
            "hotpool diff -f pool.yaml -o json | jq -e '[.pools[].leaves[]] == []'"
        ),
    },
    codes={
        **ERROR_CODES,
        exit_codes.OK: "no difference: no node joins or leaves, no pool is created or removed",
        exit_codes.DIFFERENT: "there is a difference",
        exit_codes.USAGE: "wrong usage, or a manifest that the API server refuses or whose kind it does not serve",
    },
)


@command(_HELP)
@manifest_option(required=True)
@fleet_options
@output_option(OutputFormat)
def diff(
    *,
    files: tuple[str, ...],
    fleet: FleetOptions,
    output: OutputFormat,
) -> None:
    """Show the nodes that would join and leave pools if manifests were applied.

    The API server checks each manifest by a dry run, with its admission policies. Each NodePool and NodePoolGenerator
    is then compared separately with the stored objects. The spec of a manifest replaces the whole stored spec. For a
    generator: the pools that would be created, changed, and removed after its grace, if the nodes do not change.
    Nothing is written. A dry run needs the right to write (create, patch); without it the manifests are checked by
    this program alone, and a warning says so.
    """
    from hotpool.cli.differences import compare, load_manifests, only_namespace, proposals, warn_ignored
    from hotpool.cli.query import run_connected

    manifests = load_manifests("diff", files)
    fleet = replace(fleet, given=only_namespace("diff", manifests, fleet.given))

    async def task(connection: "Connection") -> "Difference":
        snapshot, proposed, result = await proposals(connection, fleet.namespace, manifests)
        return compare(snapshot, proposed, result.warning)

    found = run_connected("diff", fleet, task)
    warn_ignored(manifests)
    if output is OutputFormat.JSON:
        from hotpool.cli import json_output

        print_json(json_output.difference(found))
    else:
        from hotpool.cli.render import diff

        diff.show(found)
    sys.exit(exit_codes.DIFFERENT if found.differs else exit_codes.OK)
