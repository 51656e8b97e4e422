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
    redis_options,
)
from hotpool.common import exit_codes
from hotpool.common.cli_help import HelpSections, command, output_option

_HELP: Final = HelpSections(
    examples={
        "One node and one pool: each requirement and its remedies": "hotpool why edge-017 zh-en -n speech",
        "Nodes outside a pool, the nearest misses first": "hotpool why --pool zh-en",
        "A node in every pool, and its last transitions": "hotpool why --node edge-017",
        "The same, with ejected services, and gained and lost types": "hotpool why --node edge-017 --redis redis://127.0.0.1:6379",
        "The deciding criterion, for a script": "hotpool why edge-017 zh-en -o json | jq -r .verdict.criterion",
    },
    codes={
        **ERROR_CODES,
        exit_codes.OK: "explained, whether the node is a member or not",
        exit_codes.NOT_FOUND: "there is no such node or pool",
    },
)


@command(_HELP)
@click.argument("node", metavar="[NODE]", required=False)
@click.argument("pool", metavar="[POOL]", required=False)
@click.option("--node", "of_node", help="Explain this node in every pool.")
@click.option("--pool", "of_pool", help="Explain this pool and its nearest misses.")
@redis_options(
    "With --node: read transitions and ejected services from redis://, rediss:// or unix://, too.", required=False
)
@click.option(
    "--limit", type=click.IntRange(1), default=10, show_default=True, help="With --pool: number of misses to show."
)
@fleet_options
@output_option(OutputFormat)
def why(
    *,
    node: str | None,
    pool: str | None,
    of_node: str | None,
    of_pool: str | None,
    redis: RedisOptions | None,
    limit: int,
    fleet: FleetOptions,
    output: OutputFormat,
) -> None:
    """Explain why a node is in a pool or not, and what would change it.

    Give NODE and POOL, or --pool, or --node. A generated pool has also the name GENERATOR/KEY, such as speech/zh-en.
    The verdict is computed from the stored objects by the function that the operator uses. Only the operator measures
    silence and applies the brake: both are read from conditions and slices.
    """
    from hotpool.cli.why_answers import explain_node, explain_one_pool, explain_pair

    if node and pool and not (of_node or of_pool):
        explain_pair(fleet, node, pool, output)
    elif of_pool and not (node or pool or of_node):
        explain_one_pool(fleet, of_pool, limit, output)
    elif of_node and not (node or pool or of_pool):
        explain_node(fleet, of_node, redis, output)
    else:
        raise click.UsageError("give NODE and POOL, or --pool POOL, or --node NODE")
