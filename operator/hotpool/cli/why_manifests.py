"""Answers of `hotpool why -f`: pools that need not be applied. Reads only, and asks for dry runs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from hotpool.api.slice import MemberState
from hotpool.cli import json_output
from hotpool.cli.differences import load_manifests, only_namespace, proposals
from hotpool.cli.fleet_reader import FleetSnapshot
from hotpool.cli.leader import read_leader_if_allowed, warning_of
from hotpool.cli.options import CommandError, FleetOptions, OutputFormat, print_json
from hotpool.cli.query import run_connected
from hotpool.cli.undeclared import undeclared
from hotpool.common import exit_codes
from hotpool.core.explain.dry_run import would_join
from hotpool.core.explain.explain import Explanation, PoolExplanation, explain, explain_pool
from hotpool.core.model import Member, Pool
from hotpool.kube.client import Connection
from hotpool.kube.reader import Reader


@dataclass(frozen=True, slots=True)
class ProposedPool:
    """A pool as it would be stored: the nodes that would be its members, and why the others would not."""

    pool: Pool
    joins: dict[str, MemberState]
    summary: PoolExplanation
    nearest: Sequence[Explanation]
    undeclared: Sequence[str]


def explain_manifests(fleet: FleetOptions, files: Sequence[str], limit: int, output: OutputFormat) -> None:
    """Print who would join the pools of manifests, and why the others would not."""
    manifests = load_manifests("why", files)
    fleet = replace(fleet, given=only_namespace("why", manifests, fleet.given))

    async def task(connection: Connection) -> tuple[list[ProposedPool], str]:
        snapshot, proposed, result = await proposals(connection, fleet.namespace, manifests)
        pools = [_explained(snapshot, item, limit) for item in proposed if isinstance(item, Pool)]
        if not pools:
            raise CommandError("no NodePool in the files of -f: for a generator see hotpool diff", exit_codes.USAGE)
        unchecked = result.warning and f"WARNING: {result.warning}."
        leader = await read_leader_if_allowed(Reader(connection.api, fleet.namespace))
        return pools, "\n".join(filter(None, (unchecked, warning_of(leader))))

    pools, warning = run_connected("why", fleet, task)
    if output is OutputFormat.JSON:
        documents = [
            json_output.proposed_pool(item.pool, item.joins, item.summary, item.nearest)
            | {"undeclared": list(item.undeclared)}
            for item in pools
        ]
        print_json({"pools": documents, "warning": warning or None})
    else:
        from hotpool.cli.render.tables import print_warning
        from hotpool.cli.render.why import show_proposed

        print_warning(warning)
        for item in pools:
            show_proposed(item.pool, item.joins, item.summary, item.nearest, item.undeclared)


def _explained(fleet: FleetSnapshot, pool: Pool, limit: int) -> ProposedPool:
    views = fleet.views()
    joins = would_join(pool, views)
    summary = explain_pool(views, pool, {node: Member(node, state, "") for node, state in joins.items()})
    nearest = [explain(fleet.facts(node), pool, None) for node in summary.candidates[:limit]]
    return ProposedPool(pool, joins, summary, nearest, undeclared(pool, map(fleet.services, fleet.nodes)))
