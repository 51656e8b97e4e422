"""`hotpool why`: explanation of a node in a pool, the nearest misses of a pool, and a node in all pools (F2).

`cli.why_answers` reads and prints.
"""

from typing import Final

import click

from hotpool.cli.options import (
    ERROR_CODES,
    FleetOptions,
    OutputFormat,
    RedisOptions,
    fleet_options,
    manifest_option,
    redis_options,
)
from hotpool.common import exit_codes
from hotpool.common.cli_help import HelpSections, command, output_option

_HELP: Final = HelpSections(
    examples={
        "One node and one pool: each requirement and its remedies": "hotpool why edge-017 zh-en -n speech",
        "Nodes outside a pool, the nearest misses first": "hotpool why zh-en",
        "A node in every pool, and its last transitions": "hotpool why edge-017",
        "The same, with ejected services, and gained and lost types": "hotpool why edge-017 --redis redis://127.0.0.1:6379",
        "A pool before it is applied: who would join, and why not the others": "hotpool why -f pool.yaml",
        "The deciding criterion, for a script": "hotpool why edge-017 zh-en -o json | jq -r .verdict.criterion",
    },
    codes={
        **ERROR_CODES,
        exit_codes.OK: "explained, whether the node is a member or not",
        exit_codes.USAGE: "wrong usage, a name of both a node and a pool, or a manifest that the API server refuses",
        exit_codes.NOT_FOUND: "there is no such node or pool",
    },
)


@command(_HELP)
@click.argument("name", metavar="[NODE or POOL]", required=False)
@click.argument("pool", metavar="[POOL]", required=False)
@manifest_option(required=False)
@click.option("--node", "of_node", help="Explain this node in every pool.")
@click.option("--pool", "of_pool", help="Explain this pool and its nearest misses.")
@redis_options(
    "For a node: read transitions and ejected services from redis://, rediss:// or unix://, too.", required=False
)
@click.option(
    "--limit", type=click.IntRange(1), default=10, show_default=True, help="For a pool: number of misses to show."
)
@fleet_options
@output_option(OutputFormat)
def why(
    *,
    name: str | None,
    pool: str | None,
    files: tuple[str, ...],
    of_node: str | None,
    of_pool: str | None,
    redis: RedisOptions | None,
    limit: int,
    fleet: FleetOptions,
    output: OutputFormat,
) -> None:
    """Explain why a node is in a pool or not, and what would change it.

    Give NODE and POOL, or one of them. --node and --pool choose if both have this name. A generated pool has also the
    name GENERATOR/KEY, such as speech/zh-en. The verdict is computed from the stored objects by the function that the
    operator uses. Only the operator measures silence and applies the brake: both are read from conditions and slices.
    With -f, the NodePools of manifests that need not be applied; the API server checks them by a dry run.
    """
    from hotpool.cli.why_answers import explain_node, explain_one_pool, explain_pair, is_node

    given = [item is not None for item in (name, of_node, of_pool)] + [bool(files)]
    if sum(given) != 1 or (pool and not name):
        raise click.UsageError("give NODE and POOL, or one of NODE, POOL, --node NODE, --pool POOL and -f FILE")
    if name and pool:
        explain_pair(fleet, name, pool, output)
    elif files:
        from hotpool.cli.why_manifests import explain_manifests

        explain_manifests(fleet, files, limit, output)
    elif of_node or (name and is_node(fleet, name)):
        explain_node(fleet, of_node or name or "", redis, output)
    else:
        explain_one_pool(fleet, of_pool or name or "", limit, output)
