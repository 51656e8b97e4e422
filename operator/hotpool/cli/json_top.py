"""JSON of `top`, see docs/reference/commands.md. Fields may be added, but not renamed or removed."""

from collections.abc import Sequence
from typing import Any

from hotpool.cli.render.top_rows import NodeRow, PoolRow

Json = dict[str, Any]


def to_json(nodes: Sequence[NodeRow] | None, pools: Sequence[PoolRow] | None) -> Json:
    """Return the JSON of `top`; None leaves a list out."""
    document: Json = {}
    if nodes is not None:
        document["nodes"] = [_node(row) for row in nodes]
    if pools is not None:
        document["pools"] = [_pool(row) for row in pools]
    return document


def _node(row: NodeRow) -> Json:
    return {
        "name": row.name,
        "lastSeen": row.last_seen,
        "lastSeenSeconds": None if row.silent is None else round(row.silent, 1),
        "state": row.state,
        "pools": row.pools,
        "servicesRunning": row.running,
        "services": row.services,
        "restarts": row.restarts,
        "flapping": list(row.flapping),
    }


def _pool(row: PoolRow) -> Json:
    return {
        "name": row.name,
        "members": {state: row.members[state] for state in ("Ready", "Suspect", "Draining")},
        "minMembers": row.minimum,
        "note": row.note or None,
        "joinedLastMinute": row.changes,
    }
