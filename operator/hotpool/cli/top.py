"""`hotpool top`: overview of nodes and pools, once or live. Reads only."""

import sys
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import click

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
from hotpool.common.cli_help import EnumChoice, HelpSections, command, output_option

_SUMMARY_ROWS: Final = 10
"""Maximum of rows in each table if both are shown."""


class Resource(StrEnum):
    """Resource to show."""

    NODES = "nodes"
    POOLS = "pools"


_HELP: Final = HelpSections(
    examples={
        "Nodes and pools, ten of each": "hotpool top -n speech",
        "All nodes, the longest silence first": "hotpool top nodes --sort-by last-seen",
        "Nodes, with services that dispatchers report as failing": "hotpool top nodes --redis redis://127.0.0.1:6379",
        "Pools, live, most changes first": "hotpool top pools --watch --sort-by changes",
        "Nodes with a flapping service, for a script": (
            "hotpool top nodes -o json | jq -r '.nodes[] | select(.flapping != []).name'"
        ),
    },
    codes={
        **ERROR_CODES,
        exit_codes.OK: "shown",
        exit_codes.NOT_FOUND: "there is no fleet in this namespace",
    },
)


@dataclass(frozen=True, slots=True)
class TopView:
    """Resource and sort order to show."""

    resource: Resource | None
    order: str | None

    @property
    def limit(self) -> int | None:
        """Maximum of rows in each table; None: all."""
        return _SUMMARY_ROWS if self.resource is None else None


@command(_HELP)
@click.argument("resource", metavar="[nodes|pools]", type=EnumChoice(Resource), required=False)
@click.option("--sort-by", help="Sort order; see above.")
@redis_options("Show ejected services, from redis://, rediss:// or unix://, too.", required=False)
@click.option("--watch", "-w", is_flag=True, help="Refresh every 2 s until Ctrl-C.")
@fleet_options
@output_option(OutputFormat)
def top(
    *,
    resource: Resource | None,
    sort_by: str | None,
    redis: RedisOptions | None,
    watch: bool,
    fleet: FleetOptions,
    output: OutputFormat,
) -> None:
    """Show an overview of nodes and pools.

    Columns of a node: time since the last renewal of its Lease by the node's own clock, reason of its condition
    Ready, number of pools, running and all services, restarts after crashes, and flapping types. Columns of a pool:
    members by state, and changes in the last minute: with --watch all observed ones, else only new members.

    Without an argument: ten rows of nodes and of pools. What needs a look comes first: nodes that are out of their
    pools, then those that are offered last; pools that are not ready, with the reason in NOTE. With --redis, also the
    services that dispatchers reported as failing and pick last. Nodes are sorted by worst, name, last-seen, pools,
    services or flaps; pools by worst, name, members, ready or changes.
    """
    from hotpool.cli.query import run_query
    from hotpool.cli.top_reader import read_rows, watch_rows

    view = TopView(resource, _order(resource, sort_by))
    if watch and (output is OutputFormat.JSON or not sys.stdout.isatty()):
        raise click.UsageError("--watch needs a terminal, and has no JSON output")
    if watch:
        watch_rows(fleet, view, redis)
        return
    rows = run_query("top", fleet, lambda reader: read_rows(reader, view, None, fleet, redis))
    if output is OutputFormat.JSON:
        from hotpool.cli import json_output

        print_json(json_output.top(rows))
    else:
        from hotpool.cli.render.tables import print_line
        from hotpool.cli.render.top import tables

        print_line(tables(rows, limit=view.limit, live=False))


def _order(resource: Resource | None, option: str | None) -> str | None:
    if option is None:
        return None
    if resource is None:
        raise click.UsageError("--sort-by needs nodes or pools")
    from hotpool.cli.render.top_rows import NODE_ORDERS, POOL_ORDERS

    orders = NODE_ORDERS if resource is Resource.NODES else POOL_ORDERS
    if option not in orders:
        raise click.UsageError(f"--sort-by {option}: {resource} are sorted by {', '.join(orders)}")
    return option
