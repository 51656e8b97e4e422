"""Answers of `hotpool why`. Reads only. `core.explain.explain` computes the explanation."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from hotpool.cli import json_output, node_events
from hotpool.cli.ejections import read_ejections
from hotpool.cli.fleet_reader import FleetSnapshot, read, read_node, read_slices, read_with_kube_nodes
from hotpool.cli.leader import read_leader_if_allowed, warning_of
from hotpool.cli.options import FleetOptions, OutputFormat, RedisOptions, print_json
from hotpool.cli.query import find, find_any, run_query
from hotpool.cli.undeclared import undeclared
from hotpool.core.explain.explain import Explanation, PoolExplanation, explain, explain_pool
from hotpool.core.model import Kind, Pool
from hotpool.kube.reader import Reader

if TYPE_CHECKING:
    from hotpool.cli.node_events import HistoryEntry
    from hotpool.core.explain.remedies import NodeFacts
    from hotpool.lookup import Ejection

T = TypeVar("T")


def _ask(fleet: FleetOptions, query: Callable[[Reader], Awaitable[T]]) -> tuple[T, str]:
    """Run a query. Return its result, and the warning if no operator leads."""

    async def both(reader: Reader) -> tuple[T, str]:
        return await query(reader), warning_of(await read_leader_if_allowed(reader))

    return run_query("why", fleet, both)


def is_node(fleet: FleetOptions, name: str) -> bool:
    """Return True for the name of a node, False for that of a pool. End the command if it is neither, or both."""

    async def query(reader: Reader) -> bool:
        return (await find_any(reader, name, fleet.namespace)) is Kind.NODE

    return run_query("why", fleet, query)


def explain_pair(fleet: FleetOptions, node: str, pool: str, output: OutputFormat) -> None:
    """Print why a node is in a pool or not."""

    async def query(reader: Reader) -> Explanation:
        snapshot = FleetSnapshot()
        await read_node(reader, snapshot, await find(reader, Kind.NODE, node, fleet.namespace))
        body = await find(reader, Kind.POOL, pool, fleet.namespace)
        snapshot.add_required(Kind.POOL, body)
        name = body["metadata"]["name"]
        await read_slices(reader, snapshot, name)
        return explain(snapshot.facts(node), snapshot.pools[name], snapshot.members(name).get(node))

    explanation, warning = _ask(fleet, query)
    if output is OutputFormat.JSON:
        print_json(json_output.explanation(explanation) | {"warning": warning or None})
    else:
        from hotpool.cli.render.tables import print_warning
        from hotpool.cli.render.why import show_explanation

        print_warning(warning)
        show_explanation(explanation, datetime.now(UTC))


def explain_one_pool(fleet: FleetOptions, pool: str, limit: int, output: OutputFormat) -> None:
    """Print why nodes are not in a pool, the nearest misses first."""

    async def query(reader: Reader) -> tuple[Pool, PoolExplanation, list[Explanation], tuple[str, ...]]:
        body = await find(reader, Kind.POOL, pool, fleet.namespace)
        snapshot = await read_with_kube_nodes(reader, Kind.NODE)
        snapshot.add_required(Kind.POOL, body)
        name = body["metadata"]["name"]
        await read_slices(reader, snapshot, name)
        snapshot.warn_unreadable()
        asked = snapshot.pools[name]
        summary = explain_pool(snapshot.views(), asked, snapshot.members(name))
        nearest = [explain(snapshot.facts(node), asked, None) for node in summary.candidates[:limit]]
        return asked, summary, nearest, undeclared(asked, map(snapshot.services, snapshot.nodes))

    (explained, summary, nearest, missing), warning = _ask(fleet, query)
    if output is OutputFormat.JSON:
        document = json_output.pool_explanation(explained, summary, nearest)
        print_json(document | {"undeclared": list(missing), "warning": warning or None})
    else:
        from hotpool.cli.render.tables import print_warning
        from hotpool.cli.render.why import show_pool

        print_warning(warning)
        show_pool(explained, summary, nearest, missing)


def explain_node(fleet: FleetOptions, node: str, redis: RedisOptions | None, output: OutputFormat) -> None:
    """Print the verdicts of all pools about a node, and its last transitions."""

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

    (facts, explanations, history, ejections), warning = _ask(fleet, query)
    if output is OutputFormat.JSON:
        document = json_output.node_explanation(facts, explanations, history, ejections)
        print_json(document | {"warning": warning or None})
    else:
        from hotpool.cli.render.tables import print_warning
        from hotpool.cli.render.why import show_node

        print_warning(warning)
        show_node(facts, explanations, history, ejections, datetime.now(UTC))
