"""`hotpool why`: why a node is in a pool or not, who is nearest to a pool, how a node stands everywhere (F2).

Reads only; the answer is `core.explain.explain`'s.
"""

from datetime import UTC, datetime
from typing import Annotated

import typer

from hotpool.cli import json_output, node_events
from hotpool.cli.fleet_reader import FleetSnapshot, read, read_node, read_slices, read_with_kube_nodes
from hotpool.cli.node_events import HistoryEntry, RedisSource
from hotpool.cli.options import (
    ContextOption,
    FleetOptions,
    KubeconfigOption,
    NamespaceOption,
    OutputFormat,
    OutputOption,
    print_json,
)
from hotpool.cli.query import find, run_query
from hotpool.common import cli_help
from hotpool.core.explain.explain import Explanation, PoolExplanation, explain, explain_pool
from hotpool.core.explain.remedies import NodeFacts
from hotpool.core.model import Kind, Pool
from hotpool.kube.reader import Reader

_HELP = cli_help.command(
    {
        "One node and one pool: each requirement, and what would flip it": "hotpool why edge-017 zh-en -n speech",
        "Who is out of a pool and why, the nearest misses first": "hotpool why --pool zh-en",
        "A node in every pool, and what happened to it last": "hotpool why --node edge-017",
        "The same, with the types that came and went": "hotpool why --node edge-017 --redis redis://127.0.0.1:6379",
        "The criterion that decided, for a script": "hotpool why edge-017 zh-en -o json | jq -r .verdict.criterion",
    },
    {
        cli_help.OK: "answered, whatever the answer is",
        cli_help.NOT_FOUND: "there is no such node or pool",
    },
)


def register(app: typer.Typer) -> None:
    """Add the command to the program."""

    @app.command(cls=_HELP)
    def why(
        node: Annotated[str | None, typer.Argument(metavar="NODE", help="Name of the NodeCapability.")] = None,
        pool: Annotated[str | None, typer.Argument(metavar="POOL", help="Name of the NodePool.")] = None,
        *,
        of_node: Annotated[str | None, typer.Option("--node", help="This node in every pool.")] = None,
        of_pool: Annotated[str | None, typer.Option("--pool", help="This pool: the nearest misses.")] = None,
        redis: Annotated[
            str | None,
            typer.Option(
                envvar="HOTPOOL_REDIS_URL", help="With --node: redis://, rediss:// or unix://, to ask it, too."
            ),
        ] = None,
        prefix: Annotated[str, typer.Option(envvar="HOTPOOL_REDIS_PREFIX", help="Of the keys in Redis.")] = "hotpool",
        limit: Annotated[int, typer.Option(min=1, help="Misses to show, with --pool.")] = 10,
        namespace: NamespaceOption = None,
        context: ContextOption = None,
        kubeconfig: KubeconfigOption = None,
        output: OutputOption = OutputFormat.TEXT,
    ) -> None:
        """Say why a node is in a pool or not, and what would change that.

        Give NODE and POOL, or --pool, or --node. The verdict comes from the function by which the operator decides,
        and from the objects as they are; the node's silence and the brake are the operator's to know, and are read
        from conditions and slices.
        """
        place = FleetOptions.of(namespace, kubeconfig, context)
        if node and pool and not (of_node or of_pool):
            _pair(place, node, pool, output)
        elif of_pool and not (node or pool or of_node):
            _pool(place, of_pool, limit, output)
        elif of_node and not (node or pool or of_pool):
            _node(place, of_node, RedisSource(redis, prefix, place.namespace) if redis else None, output)
        else:
            raise typer.BadParameter("give NODE and POOL, or --pool POOL, or --node NODE")


def _pair(place: FleetOptions, node: str, pool: str, output: OutputFormat) -> None:
    async def ask(reader: Reader) -> Explanation:
        found = FleetSnapshot()
        await read_node(reader, found, await find(reader, Kind.NODE, node, place.namespace))
        found.add_required(Kind.POOL, await find(reader, Kind.POOL, pool, place.namespace))
        await read_slices(reader, found, pool)
        return explain(found.facts(node), found.pools[pool], found.members(pool).get(node))

    found = run_query("why", place, ask)
    if output is OutputFormat.JSON:
        print_json(json_output.explanation(found))
    else:
        from hotpool.cli.render.why import show_explanation

        show_explanation(found, datetime.now(UTC))


def _pool(place: FleetOptions, pool: str, limit: int, output: OutputFormat) -> None:
    async def ask(reader: Reader) -> tuple[Pool, PoolExplanation, list[Explanation]]:
        body = await find(reader, Kind.POOL, pool, place.namespace)
        found = await read_with_kube_nodes(reader, Kind.NODE)
        found.add_required(Kind.POOL, body)
        await read_slices(reader, found, pool)
        found.warn_unreadable()
        wanted = found.pools[pool]
        made = explain_pool(found.views(), wanted, found.members(pool))
        return wanted, made, [explain(found.facts(node), wanted, None) for node in made.candidates[:limit]]

    wanted, made, nearest = run_query("why", place, ask)
    if output is OutputFormat.JSON:
        print_json(json_output.pool_explanation(wanted, made, nearest))
    else:
        from hotpool.cli.render.why import show_pool

        show_pool(wanted, made, nearest)


def _node(place: FleetOptions, node: str, redis: RedisSource | None, output: OutputFormat) -> None:
    async def ask(reader: Reader) -> tuple[NodeFacts, list[Explanation], list[HistoryEntry]]:
        body = await find(reader, Kind.NODE, node, place.namespace)
        found = await read(reader, Kind.POOL, Kind.SLICE)
        await read_node(reader, found, body)
        facts = found.facts(node)
        answers = [explain(facts, pool, found.members(name).get(node)) for name, pool in sorted(found.pools.items())]
        found.warn_unreadable()
        return facts, answers, await node_events.of_node(reader, node, redis)

    facts, answers, last = run_query("why", place, ask)
    if output is OutputFormat.JSON:
        print_json(json_output.node_explanation(facts, answers, last))
    else:
        from hotpool.cli.render.why import show_node

        show_node(facts, answers, last, datetime.now(UTC))
