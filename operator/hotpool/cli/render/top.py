"""Text output of `top`."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from rich.console import Group, RenderableType
from rich.text import Text

from hotpool.cli.render.tables import BAD, GOOD, WARNING, plural, table
from hotpool.cli.render.top_rows import OFFERED_STATES, NodeRow, PoolRow, Rows
from hotpool.common.durations import age

_COLOURS: Final = {"Live": GOOD} | dict.fromkeys(OFFERED_STATES, WARNING)


def tables(rows: Rows, *, limit: int | None, live: bool) -> Group:
    """Return a summary and the tables of nodes and pools, of at most `limit` rows each; None leaves a table out.

    The first line is the warning, if there is one.
    """
    return Group(*_parts(rows, limit, live=live))


def _parts(found: Rows, limit: int | None, *, live: bool) -> Iterator[RenderableType]:
    nodes, pools = found.nodes, found.pools
    if found.warning:
        yield Text(found.warning, BAD)
    yield Text("; ".join(filter(None, (_nodes_summary(nodes), _pools_summary(pools)))))
    yield Text()
    if nodes is not None:
        rows = [_node(row) for row in nodes[:limit]]
        columns: tuple[str, ...] = ("NODE", "LAST SEEN*", "STATE", "POOLS", "SERVICES", "RESTARTS", "FLAPPING")
        if any(row.ejected is not None for row in nodes):
            columns = (*columns, "EJECTED")
        yield table(columns, rows, right=("LAST SEEN*", "POOLS", "SERVICES", "RESTARTS"))
        yield from _more(len(nodes), limit, "nodes")
        yield Text("* by the clock of the node", "dim")
    if nodes is not None and pools is not None:
        yield Text()
    if pools is not None:
        columns = ("POOL", "READY", "SUSPECT", "DRAINING", "MIN", "CHANGES*", "NOTE")
        yield table(columns, [_pool(row) for row in pools[:limit]], right=columns[1:-1])
        yield from _more(len(pools), limit, "pools")
        counted = "observed changes of members" if live else "new members"
        yield Text(f"* {counted} in the last minute", "dim")


def _nodes_summary(nodes: Sequence[NodeRow] | None) -> str:
    if nodes is None:
        return ""
    states = Counter(row.state for row in nodes)
    counts = ", ".join(
        f"{count} {state}" for state, count in sorted(states.items(), key=lambda item: (-item[1], item[0]))
    )
    flapping = sum(bool(row.flapping) for row in nodes)
    more = f", {flapping} flapping" if flapping else ""
    return f"{plural(len(nodes), 'node')}{': ' if counts else ''}{counts}{more}"


def _pools_summary(pools: Sequence[PoolRow] | None) -> str:
    if pools is None:
        return ""
    return f"{plural(len(pools), 'pool')}: {sum(row.ready for row in pools)} ready"


def _more(count: int, limit: int | None, resource: str) -> Iterator[Text]:
    if limit is not None and count > limit:
        yield Text(f"… and {count - limit} more: hotpool top {resource}", "dim")


def _node(row: NodeRow) -> tuple[str | Text, ...]:
    return (
        row.name,
        age(row.silent),
        Text(row.state, _COLOURS.get(row.state, BAD)),
        str(row.pools),
        f"{row.running}/{row.services}",
        str(row.restarts),
        Text(", ".join(row.flapping), BAD),
        *(() if row.ejected is None else (Text(", ".join(row.ejected), BAD),)),
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
        ", ".join(filter(None, (row.note, f"{row.ejected} ejected" if row.ejected else ""))),
    )
