"""What `top` prints for people.

Decides nothing.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from rich.console import Group, RenderableType
from rich.text import Text

from hotpool.cli.render.tables import BAD, DOUBTFUL, GOOD, table
from hotpool.cli.render.top_rows import NodeRow, PoolRow
from hotpool.common.durations import age

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
