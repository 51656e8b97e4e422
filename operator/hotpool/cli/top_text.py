"""What `top` prints for people and for programs.

Called by `cli.top` with rows. Decides nothing.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from rich.console import Group, RenderableType
from rich.text import Text

from hotpool.cli.text import BAD, DOUBTFUL, GOOD, age, table
from hotpool.cli.top_rows import NodeRow, PoolRow

Json = dict[str, Any]

_COLOURS: Final = {"Live": GOOD, "Suspect": DOUBTFUL, "Draining": DOUBTFUL, "Cordoned": DOUBTFUL}


def tables(nodes: Sequence[NodeRow] | None, pools: Sequence[PoolRow] | None, *, limit: int | None, live: bool) -> Group:
    """The tables that were asked for; of each at most `limit` rows."""
    return Group(*_parts(nodes, pools, limit, live=live))


def _parts(
    nodes: Sequence[NodeRow] | None, pools: Sequence[PoolRow] | None, limit: int | None, *, live: bool
) -> Iterator[RenderableType]:
    if nodes is not None:
        rows = [_node(row) for row in nodes[:limit]]
        columns = ("NODE", "LAST SEEN*", "STATE", "POOLS", "SERVICES", "RESTARTS", "FLAPPING")
        yield table(columns, rows, right=("LAST SEEN*", "POOLS", "SERVICES", "RESTARTS"))
        yield from _more(len(nodes), limit, "nodes")
        yield Text("* by the node's own clock", "dim")
    if nodes is not None and pools is not None:
        yield Text()
    if pools is not None:
        columns = ("POOL", "READY", "SUSPECT", "DRAINING", "MIN", "CHANGES*", "NOTE")
        yield table(columns, [_pool(row) for row in pools[:limit]], right=columns[1:-1])
        yield from _more(len(pools), limit, "pools")
        words = "members that came, went or changed, as watched," if live else "members that came"
        yield Text(f"* {words} in the last minute", "dim")


def _more(count: int, limit: int | None, what: str) -> Iterator[Text]:
    if limit is not None and count > limit:
        yield Text(f"… and {count - limit} more: hotpool top {what}", "dim")


def _node(row: NodeRow) -> tuple[str | Text, ...]:
    return (
        row.name,
        age(row.silent),
        Text(row.state, _COLOURS.get(row.state, BAD)),
        str(row.pools),
        f"{row.running}/{row.services}",
        str(row.restarts),
        Text(", ".join(row.flapping), BAD),
    )


def _pool(row: PoolRow) -> tuple[str | Text, ...]:
    ready = row.members["Ready"]
    return (
        row.name,
        Text(str(ready), GOOD if ready >= row.minimum else BAD),
        str(row.members["Suspect"]),
        str(row.members["Draining"]),
        str(row.minimum),
        str(row.changes),
        row.note,
    )


def shape(nodes: Sequence[NodeRow] | None, pools: Sequence[PoolRow] | None) -> Json:
    """The JSON, documented in docs/why.md."""
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
