"""`hotpool top`: nodes and pools at a glance, once or live.

Registered by `__main__`. Reads only.
"""

import asyncio
import sys
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from time import monotonic
from typing import Annotated, Any, Final

import typer
from rich.console import Group
from rich.live import Live
from rich.text import Text

from hotpool.cli import manual, top_text
from hotpool.cli.options import (
    ContextOption,
    KubeconfigOption,
    NamespaceOption,
    Output,
    OutputOption,
    Place,
    answer,
    print_json,
    trouble,
)
from hotpool.cli.snapshot import Snapshot, read
from hotpool.cli.text import BAD, console, say
from hotpool.cli.top_rows import NODE_ORDERS, POOL_ORDERS, NodeRow, PoolRow, Rates, arrivals, node_rows, pool_rows
from hotpool.clients import Reader, Unavailable
from hotpool.core.model import Kind

REFRESH_SECONDS: Final = 2.0
_SHARE: Final = 4
"""A look that took long is followed by a pause of so many times as long: a glance must not burden a large fleet."""
_SHORT: Final = 10
"""Rows of each table where both are shown."""


class What(StrEnum):
    """What is shown."""

    NODES = "nodes"
    POOLS = "pools"


_HELP = manual.command(
    {
        "Nodes and pools, ten of each": "hotpool top -n speech",
        "All nodes, the longest silent first": "hotpool top nodes --sort-by last-seen",
        "Pools, live, those that change most first": "hotpool top pools --watch --sort-by changes",
        "Nodes with a service that flaps, for a script": (
            "hotpool top nodes -o json | jq -r '.nodes[] | select(.flapping != []).name'"
        ),
    },
    {manual.OK: "shown"},
)


@dataclass(frozen=True, slots=True)
class View:
    """What the user wants to see."""

    what: What | None
    order: str | None

    @property
    def limit(self) -> int | None:
        """Rows of each table."""
        return _SHORT if self.what is None else None


def register(app: typer.Typer) -> None:
    """Add the command to the program."""

    @app.command(cls=_HELP)
    def top(
        what: Annotated[What | None, typer.Argument(metavar="[nodes|pools]", help="Default: both, ten rows.")] = None,
        *,
        sort_by: Annotated[str | None, typer.Option(help="A column; see above.")] = None,
        watch: Annotated[bool, typer.Option("--watch", "-w", help="Go on, every 2 s, until Ctrl-C.")] = False,
        namespace: NamespaceOption = None,
        context: ContextOption = None,
        kubeconfig: KubeconfigOption = None,
        output: OutputOption = Output.TEXT,
    ) -> None:
        """Show nodes and pools at a glance.

        Of a node: how long ago its Lease was renewed by the node's own clock, the reason of its condition Ready, its
        pools, its running services of all, restarts after crashes, and types that flap. Of a pool: its members by
        state, and changes in the last minute: while watching all that were seen, else only who came in.

        Nodes are sorted by name, last-seen, pools, services or flaps; pools by name, members, ready or changes. Where
        both are shown the longest silent nodes and the pools that change most come first.
        """
        view = View(what, _order(what, sort_by))
        place = Place.of(namespace, kubeconfig, context)
        if watch and (output is Output.JSON or not sys.stdout.isatty()):
            raise typer.BadParameter("--watch needs a terminal, and prints text")
        if watch:
            with suppress(KeyboardInterrupt):
                answer("top", place, lambda reader: _watch(reader, view, place.namespace))
            return
        nodes, pools = answer("top", place, lambda reader: _look(reader, view, None))
        if output is Output.JSON:
            print_json(top_text.shape(nodes, pools))
        else:
            say(top_text.tables(nodes, pools, limit=view.limit, live=False))


def _order(what: What | None, said: str | None) -> str | None:
    if said is None:
        return None
    if what is None:
        raise typer.BadParameter("--sort-by needs nodes or pools")
    known = NODE_ORDERS if what is What.NODES else POOL_ORDERS
    if said not in known:
        raise typer.BadParameter(f"--sort-by {said}: {what} are sorted by {', '.join(known)}")
    return said


Rows = tuple[list[NodeRow] | None, list[PoolRow] | None]


async def _look(reader: Reader, view: View, rates: Rates | None) -> Rows:
    """One look at the fleet."""
    kinds = {What.NODES: (Kind.NODE, Kind.SLICE), What.POOLS: (Kind.POOL, Kind.SLICE)}
    found = await read(reader, *(kinds[view.what] if view.what else (Kind.NODE, Kind.POOL, Kind.SLICE)))
    if rates is None:
        found.warn()
    now = datetime.now(UTC)
    nodes: list[NodeRow] | None = None
    if view.what is not What.POOLS:
        nodes = node_rows(found, await reader.leases(), now)
        nodes.sort(key=NODE_ORDERS[view.order or ("name" if view.what else "last-seen")])
    return nodes, _pools(found, view, rates, now)


def _pools(found: Snapshot, view: View, rates: Rates | None, now: datetime) -> list[PoolRow] | None:
    if view.what is What.NODES:
        return None
    rows = pool_rows(found, rates.look(found, monotonic()) if rates else arrivals(found, now))
    return sorted(rows, key=POOL_ORDERS[view.order or ("name" if view.what else "changes")])


async def _watch(reader: Reader, view: View, namespace: str) -> None:
    """Look again and again; while the API server is away the last look stays, and it says so."""
    rates = Rates()
    shown: list[Any] = []
    with Live(console=console(), screen=True, auto_refresh=False) as live:
        while True:
            began = monotonic()
            try:
                nodes, pools = await _look(reader, view, rates)
                shown = [top_text.tables(nodes, pools, limit=view.limit, live=True)]
                words = Text(f"{datetime.now().astimezone():%H:%M:%S}  namespace {namespace}  Ctrl-C ends", "dim")
            except Unavailable as error:
                if not shown:
                    raise
                words = Text(f"{trouble(error, namespace)[0]}; trying again", BAD)
            live.update(Group(words, *shown), refresh=True)
            await asyncio.sleep(max(REFRESH_SECONDS, _SHARE * (monotonic() - began)))
