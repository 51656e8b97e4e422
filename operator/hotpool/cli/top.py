"""`hotpool top`: nodes and pools at a glance, once or live.

Reads only.
"""

import sys
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from time import monotonic
from typing import Annotated, Final

import typer

from hotpool.cli.fleet_reader import FleetSnapshot, read
from hotpool.cli.json_top import to_json
from hotpool.cli.options import (
    ContextOption,
    FleetOptions,
    KubeconfigOption,
    NamespaceOption,
    OutputFormat,
    OutputOption,
    print_json,
)
from hotpool.cli.query import run_query
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
from hotpool.common import cli_help
from hotpool.core.model import Kind
from hotpool.kube.reader import Reader

_SHORT: Final = 10
"""Rows of each table where both are shown."""


class Resource(StrEnum):
    """What is shown."""

    NODES = "nodes"
    POOLS = "pools"


_HELP = cli_help.command(
    {
        "Nodes and pools, ten of each": "hotpool top -n speech",
        "All nodes, the longest silent first": "hotpool top nodes --sort-by last-seen",
        "Pools, live, those that change most first": "hotpool top pools --watch --sort-by changes",
        "Nodes with a service that flaps, for a script": (
            "hotpool top nodes -o json | jq -r '.nodes[] | select(.flapping != []).name'"
        ),
    },
    {cli_help.OK: "shown"},
)


@dataclass(frozen=True, slots=True)
class TopView:
    """What the user wants to see."""

    resource: Resource | None
    order: str | None

    @property
    def limit(self) -> int | None:
        """Rows of each table."""
        return _SHORT if self.resource is None else None


def register(app: typer.Typer) -> None:
    """Add the command to the program."""

    @app.command(cls=_HELP)
    def top(
        what: Annotated[
            Resource | None, typer.Argument(metavar="[nodes|pools]", help="Default: both, ten rows.")
        ] = None,
        *,
        sort_by: Annotated[str | None, typer.Option(help="A column; see above.")] = None,
        watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on, every 2 s, until Ctrl-C.")] = False,
        namespace: NamespaceOption = None,
        context: ContextOption = None,
        kubeconfig: KubeconfigOption = None,
        output: OutputOption = OutputFormat.TEXT,
    ) -> None:
        """Show nodes and pools at a glance.

        Of a node: how long ago its Lease was renewed by the node's own clock, the reason of its condition Ready, its
        pools, its running services of all, restarts after crashes, and types that flap. Of a pool: its members by
        state, and changes in the last minute: while watching all that were seen, else only who came in.

        Nodes are sorted by name, last-seen, pools, services or flaps; pools by name, members, ready or changes. Where
        both are shown the longest silent nodes and the pools that change most come first.
        """
        view = TopView(what, _order(what, sort_by))
        place = FleetOptions.of(namespace, kubeconfig, context)
        if watch and (output is OutputFormat.JSON or not sys.stdout.isatty()):
            raise typer.BadParameter("--watch needs a terminal, and prints text")
        if watch:
            _watch(place, view)
            return
        nodes, pools = run_query("top", place, lambda reader: _look(reader, view, None))
        if output is OutputFormat.JSON:
            print_json(to_json(nodes, pools))
        else:
            from hotpool.cli.render.tables import print_line
            from hotpool.cli.render.top import tables

            print_line(tables(nodes, pools, limit=view.limit, live=False))


def _order(what: Resource | None, said: str | None) -> str | None:
    if said is None:
        return None
    if what is None:
        raise typer.BadParameter("--sort-by needs nodes or pools")
    known = NODE_ORDERS if what is Resource.NODES else POOL_ORDERS
    if said not in known:
        raise typer.BadParameter(f"--sort-by {said}: {what} are sorted by {', '.join(known)}")
    return said


Rows = tuple[list[NodeRow] | None, list[PoolRow] | None]


async def _look(reader: Reader, view: TopView, rates: Rates | None) -> Rows:
    """One look at the fleet."""
    kinds = {Resource.NODES: (Kind.NODE, Kind.SLICE), Resource.POOLS: (Kind.POOL, Kind.SLICE)}
    found = await read(reader, *(kinds[view.resource] if view.resource else (Kind.NODE, Kind.POOL, Kind.SLICE)))
    if rates is None:
        found.warn_unreadable()
    now = datetime.now(UTC)
    nodes: list[NodeRow] | None = None
    if view.resource is not Resource.POOLS:
        nodes = node_rows(found, await reader.leases(), now)
        nodes.sort(key=NODE_ORDERS[view.order or ("name" if view.resource else "last-seen")])
    return nodes, _pools(found, view, rates, now)


def _pools(found: FleetSnapshot, view: TopView, rates: Rates | None, now: datetime) -> list[PoolRow] | None:
    if view.resource is Resource.NODES:
        return None
    rows = pool_rows(found, rates.update(found, monotonic()) if rates else arrivals(found, now))
    return sorted(rows, key=POOL_ORDERS[view.order or ("name" if view.resource else "changes")])


def _watch(place: FleetOptions, view: TopView) -> None:
    from hotpool.cli.render.top_live import watch

    rates = Rates()
    with suppress(KeyboardInterrupt):
        run_query("top", place, lambda reader: watch(lambda: _look(reader, view, rates), view.limit, place.namespace))
