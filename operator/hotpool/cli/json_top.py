"""The JSON of `top` (docs/reference/commands.md): fields may be added, none is renamed or removed."""

from collections.abc import Sequence
from typing import Any

from hotpool.cli.render.top_rows import NodeRow, PoolRow

Json = dict[str, Any]


def to_json(nodes: Sequence[NodeRow] | None, pools: Sequence[PoolRow] | None) -> Json:
    """Return what was asked for."""
    made: Json = {}
    if nodes is not None:
        made["nodes"] = [_node_shape(row) for row in nodes]
    if pools is not None:
        made["pools"] = [_pool_shape(row) for row in pools]
    return made


def _node_shape(row: NodeRow) -> Json:
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


def _pool_shape(row: PoolRow) -> Json:
    return {
        "name": row.name,
        "members": {state: row.members[state] for state in ("Ready", "Suspect", "Draining")},
        "minMembers": row.minimum,
        "note": row.note or None,
        "joinedLastMinute": row.changes,
    }
