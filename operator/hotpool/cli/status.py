"""`hotpool status`: is the fleet healthy? Reads only."""

import sys
from typing import Final

from hotpool.cli.options import (
    ERROR_CODES,
    FleetOptions,
    OutputFormat,
    RedisOptions,
    fleet_options,
    print_json,
    redis_options,
)
from hotpool.common import exit_codes
from hotpool.common.cli_help import HelpSections, command, output_option

_HELP: Final = HelpSections(
    examples={
        "Is everything well?": "hotpool status -n speech",
        "Redis, too": "hotpool status --redis redis://127.0.0.1:6379",
        "The pools that are not ready, for a script": (
            "hotpool status -o json | jq -r '.problems[] | [.subject, .reason] | @tsv'"
        ),
    },
    codes={
        **ERROR_CODES,
        exit_codes.OK: "healthy",
        exit_codes.UNHEALTHY: "not healthy: the output names each problem",
        exit_codes.FORBIDDEN: "no problem was found, but not everything may be read; the output names it",
        exit_codes.NOT_FOUND: "there is no fleet in this namespace",
    },
)


@command(_HELP)
@redis_options("Read the age of the projection from redis://, rediss:// or unix://, too.", required=False)
@fleet_options
@output_option(OutputFormat)
def status(*, redis: RedisOptions | None, fleet: FleetOptions, output: OutputFormat) -> None:
    """Show whether the fleet is healthy: operator, watches, Redis, nodes, pools and versions.

    Not healthy: no operator leads or its probe Lease is late, Redis is away, old or incomplete, a pool or generator is
    not ready, or the definitions are older than the operator needs. A node that is away is shown, and is a problem only
    where a pool misses it. A part that this account may not read is named, and the rest is shown.
    """
    from hotpool.cli.query import run_query
    from hotpool.cli.status_reader import read_health

    health = run_query("status", fleet, lambda reader: read_health(reader, fleet, redis))
    if output is OutputFormat.JSON:
        from hotpool.cli import json_output

        print_json(json_output.status(health))
    else:
        from hotpool.cli.render.status import show_status

        show_status(health)
    if not health.healthy:
        sys.exit(exit_codes.UNHEALTHY if health.problems else exit_codes.FORBIDDEN)
