"""`hotpool top`: overview of nodes and pools, once or live. Reads only."""

import sys
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Final

import click

from hotpool.cli import json_output
from hotpool.cli.ejections import read_ejections
from hotpool.cli.fleet_reader import FleetSnapshot, read
from hotpool.cli.options import (
    FleetOptions,
    OutputFormat,
    RedisOptions,
    fleet_options,
    print_json,
    redis_options,
)
from hotpool.cli.query import ERROR_CODES, run_query
from hotpool.cli.render.top_rows import (
    NODE_ORDERS,
    POOL_ORDERS,
    NodeRow,
    PoolRow,
    Rates,
    arrivals,
    node_rows,
    pool_rows,
)
from hotpool.common import exit_codes
from hotpool.common.cli_help import EnumChoice, HelpSections, command, output_option
from hotpool.core.model import Kind
from hotpool.kube.reader import Reader

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hotpool.lookup import Ejection

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
    codes={**ERROR_CODES, exit_codes.OK: "shown"},
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

    Without an argument: ten rows of nodes and of pools, the nodes with the longest silence and the pools with the most
    changes first. With --redis, also the services that dispatchers reported as failing and pick last. Nodes are sorted
    by name, last-seen, pools, services or flaps; pools by name, members, ready or changes.
    """
    view = TopView(resource, _order(resource, sort_by))
    if watch and (output is OutputFormat.JSON or not sys.stdout.isatty()):
        raise click.UsageError("--watch needs a terminal, and has no JSON output")
    if watch:
        _watch(fleet, view, redis)
        return
    nodes, pools = run_query("top", fleet, lambda reader: _read_rows(reader, view, None, fleet, redis))
    if output is OutputFormat.JSON:
        print_json(json_output.top(nodes, pools))
    else:
        from hotpool.cli.render.tables import print_line
        from hotpool.cli.render.top import tables

        print_line(tables(nodes, pools, limit=view.limit, live=False))
        if not (nodes or pools):
            click.echo(f"nothing in namespace {fleet.namespace}; see -n and --context", err=True)


def _order(resource: Resource | None, option: str | None) -> str | None:
    if option is None:
        return None
    if resource is None:
        raise click.UsageError("--sort-by needs nodes or pools")
    orders = NODE_ORDERS if resource is Resource.NODES else POOL_ORDERS
    if option not in orders:
        raise click.UsageError(f"--sort-by {option}: {resource} are sorted by {', '.join(orders)}")
    return option


Rows = tuple[list[NodeRow] | None, list[PoolRow] | None]


async def _read_rows(
    reader: Reader, view: TopView, rates: Rates | None, fleet: FleetOptions, redis: RedisOptions | None
) -> Rows:
    """Read the fleet and return the sorted rows of nodes and pools. `rates`: changes between reads, with --watch."""
    kinds = {Resource.NODES: (Kind.NODE, Kind.SLICE), Resource.POOLS: (Kind.POOL, Kind.SLICE)}
    snapshot = await read(reader, *(kinds[view.resource] if view.resource else (Kind.NODE, Kind.POOL, Kind.SLICE)))
    if rates is None:
        snapshot.warn_unreadable()
    ejections = await read_ejections(partial(redis.lookup, fleet.namespace)) if redis else None
    now = datetime.now(UTC)
    nodes: list[NodeRow] | None = None
    if view.resource is not Resource.POOLS:
        nodes = node_rows(snapshot, await reader.leases(), now, ejections)
        nodes.sort(key=NODE_ORDERS[view.order or ("name" if view.resource else "last-seen")])
    return nodes, _pools(snapshot, view, rates, now, ejections)


def _pools(
    snapshot: FleetSnapshot,
    view: TopView,
    rates: Rates | None,
    now: datetime,
    ejections: "Sequence[Ejection] | None",
) -> list[PoolRow] | None:
    if view.resource is Resource.NODES:
        return None
    rows = pool_rows(snapshot, rates.update(snapshot, monotonic()) if rates else arrivals(snapshot, now), ejections)
    return sorted(rows, key=POOL_ORDERS[view.order or ("name" if view.resource else "changes")])


def _watch(fleet: FleetOptions, view: TopView, redis: RedisOptions | None) -> None:
    from hotpool.cli.render.top_live import watch

    rates = Rates()
    with suppress(KeyboardInterrupt):
        run_query(
            "top",
            fleet,
            lambda reader: watch(lambda: _read_rows(reader, view, rates, fleet, redis), view.limit, fleet.namespace),
        )
