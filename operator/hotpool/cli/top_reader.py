"""Reads for `hotpool top`: sorted rows of nodes and pools."""

from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING

from hotpool.cli.ejections import read_ejections
from hotpool.cli.fleet_reader import FleetSnapshot, read
from hotpool.cli.leader import read_leader_if_allowed, warning_of
from hotpool.cli.options import CommandError, FleetOptions, RedisOptions
from hotpool.cli.query import no_fleet, run_query
from hotpool.cli.render.top_rows import (
    NODE_ORDERS,
    POOL_ORDERS,
    WORST,
    PoolRow,
    Rates,
    Rows,
    arrivals,
    node_rows,
    pool_rows,
)
from hotpool.cli.top import Resource, TopView
from hotpool.common import exit_codes
from hotpool.core.model import Kind
from hotpool.kube.reader import Reader

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hotpool.lookup import Ejection


async def read_rows(
    reader: Reader, view: TopView, rates: Rates | None, fleet: FleetOptions, redis: RedisOptions | None
) -> Rows:
    """Read the fleet and return the sorted rows of nodes and pools. `rates`: changes between reads, with --watch.

    Raises CommandError without a fleet.
    """
    kinds = {Resource.NODES: (Kind.NODE, Kind.SLICE), Resource.POOLS: (Kind.POOL, Kind.SLICE)}
    snapshot = await read(reader, *(kinds[view.resource] if view.resource else (Kind.NODE, Kind.POOL, Kind.SLICE)))
    if rates is None:
        snapshot.warn_unreadable()
    ejections = await read_ejections(partial(redis.lookup, fleet.namespace)) if redis else None
    now = datetime.now(UTC)
    nodes = None
    if view.resource is not Resource.POOLS:
        nodes = node_rows(snapshot, await reader.leases(), now, ejections)
        nodes.sort(key=NODE_ORDERS[view.order or WORST])
    pools = _pools(snapshot, view, rates, now, ejections)
    leader = await read_leader_if_allowed(reader, rates.leader if rates else None)
    if rates:
        rates.leader = leader
    if not (nodes or pools) and leader and leader.never_ran:
        raise CommandError(await no_fleet(reader, fleet.namespace), exit_codes.NOT_FOUND)
    return Rows(nodes, pools, warning_of(leader))


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
    return sorted(rows, key=POOL_ORDERS[view.order or WORST])


def watch_rows(fleet: FleetOptions, view: TopView, redis: RedisOptions | None) -> None:
    """Show the tables on the whole terminal until Ctrl-C."""
    from hotpool.cli.render.top_live import watch

    rates = Rates()
    with suppress(KeyboardInterrupt):
        run_query(
            "top",
            fleet,
            lambda reader: watch(lambda: read_rows(reader, view, rates, fleet, redis), view.limit, fleet.namespace),
        )
