"""`hotpool why`: explanation of a node in a pool, the nearest misses of a pool, and a node in all pools (F2).

Reads only. `core.explain.explain` computes the explanation.
"""

from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Final

import click

from hotpool.cli import json_output, node_events
from hotpool.cli.ejections import read_ejections
from hotpool.cli.fleet_reader import FleetSnapshot, read, read_node, read_slices, read_with_kube_nodes
from hotpool.cli.options import (
    FleetOptions,
    OutputFormat,
    RedisOptions,
    fleet_options,
    print_json,
    redis_options,
)
from hotpool.cli.query import ERROR_CODES, find, run_query
from hotpool.common import exit_codes
from hotpool.common.cli_help import HelpSections, command, output_option
from hotpool.core.explain.explain import Explanation, PoolExplanation, explain, explain_pool
from hotpool.core.model import Kind, Pool
from hotpool.kube.reader import Reader

if TYPE_CHECKING:
    from hotpool.cli.node_events import HistoryEntry
    from hotpool.core.explain.remedies import NodeFacts
    from hotpool.lookup import Ejection

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

    Give NODE and POOL, or --pool, or --node. The verdict is computed from the stored objects by the function that
    the operator uses. Only the operator measures silence and applies the brake: both are read from conditions and
    slices.
    """
    if node and pool and not (of_node or of_pool):
        _pair(fleet, node, pool, output)
    elif of_pool and not (node or pool or of_node):
        _pool(fleet, of_pool, limit, output)
    elif of_node and not (node or pool or of_pool):
        _node(fleet, of_node, redis, output)
    else:
        raise click.UsageError("give NODE and POOL, or --pool POOL, or --node NODE")


def _pair(fleet: FleetOptions, node: str, pool: str, output: OutputFormat) -> None:
    async def query(reader: Reader) -> Explanation:
        snapshot = FleetSnapshot()
        await read_node(reader, snapshot, await find(reader, Kind.NODE, node, fleet.namespace))
        snapshot.add_required(Kind.POOL, await find(reader, Kind.POOL, pool, fleet.namespace))
        await read_slices(reader, snapshot, pool)
        return explain(snapshot.facts(node), snapshot.pools[pool], snapshot.members(pool).get(node))

    explanation = run_query("why", fleet, query)
    if output is OutputFormat.JSON:
        print_json(json_output.explanation(explanation))
    else:
        from hotpool.cli.render.why import show_explanation

        show_explanation(explanation, datetime.now(UTC))


def _pool(fleet: FleetOptions, pool: str, limit: int, output: OutputFormat) -> None:
    async def query(reader: Reader) -> tuple[Pool, PoolExplanation, list[Explanation]]:
        body = await find(reader, Kind.POOL, pool, fleet.namespace)
        snapshot = await read_with_kube_nodes(reader, Kind.NODE)
        snapshot.add_required(Kind.POOL, body)
        await read_slices(reader, snapshot, pool)
        snapshot.warn_unreadable()
        asked = snapshot.pools[pool]
        summary = explain_pool(snapshot.views(), asked, snapshot.members(pool))
        nearest = summary.candidates[:limit]
        return asked, summary, [explain(snapshot.facts(node), asked, None) for node in nearest]

    explained, summary, nearest = run_query("why", fleet, query)
    if output is OutputFormat.JSON:
        print_json(json_output.pool_explanation(explained, summary, nearest))
    else:
        from hotpool.cli.render.why import show_pool

        show_pool(explained, summary, nearest)


def _node(fleet: FleetOptions, node: str, redis: RedisOptions | None, output: OutputFormat) -> None:
    async def query(reader: Reader) -> "tuple[NodeFacts, list[Explanation], list[HistoryEntry], list[Ejection]]":
        body = await find(reader, Kind.NODE, node, fleet.namespace)
        snapshot = await read(reader, Kind.POOL, Kind.SLICE)
        await read_node(reader, snapshot, body)
        facts, pools = snapshot.facts(node), sorted(snapshot.pools.items())
        explanations = [explain(facts, pool, snapshot.members(name).get(node)) for name, pool in pools]
        snapshot.warn_unreadable()
        open_lookup = partial(redis.lookup, fleet.namespace) if redis else None
        ejections = await read_ejections(open_lookup) if open_lookup else None
        history = await node_events.of_node(reader, node, None if ejections is None else open_lookup)
        return facts, explanations, history, [item for item in ejections or () if item.node == node]

    facts, explanations, history, ejections = run_query("why", fleet, query)
    if output is OutputFormat.JSON:
        print_json(json_output.node_explanation(facts, explanations, history, ejections))
    else:
        from hotpool.cli.render.why import show_node

        show_node(facts, explanations, history, ejections, datetime.now(UTC))
