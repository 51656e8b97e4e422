"""What `diff` prints for people.

Decides nothing.
"""

from collections.abc import Iterable, Sequence

from rich.table import Table
from rich.text import Text

from hotpool.cli.render.tables import BAD, DOUBTFUL, GOOD, HEAD, plural, print_line
from hotpool.core.explain.dry_run import GeneratorChange, PoolChange

_Row = tuple[str, str, str, str]
"""Sign, what, words, colour."""


def show(pools: Sequence[PoolChange], generators: Sequence[GeneratorChange]) -> None:
    """Each document in the order given."""
    for change in pools:
        _show_pool(change)
    for generator in generators:
        _show_generator(generator)


def _show_pool(change: PoolChange) -> None:
    print_line(Text.assemble((f"nodepool/{change.name} ", HEAD), f"({change.kind}): {_moves(change)}"))
    if change.ready_before != change.ready_after:
        print_line(f"  Ready: {_word(change.ready_before)} -> {_word(change.ready_after)}")
    rows: list[_Row] = [("+", node, state, GOOD) for node, state in change.joins.items()]
    rows += [("-", node, why, BAD) for node, why in change.leaves.items()]
    if rows:
        print_line(_rows(rows))


def _word(ready: bool | None) -> str:  # noqa: FBT001 - it is the value, not a switch.
    return "no pool" if ready is None else str(ready)


def _moves(change: PoolChange) -> str:
    counts = f"{change.members_before} -> {plural(change.members_after, 'member')}"
    return f"{len(change.joins)} would join, {len(change.leaves)} leave, {counts}"


def _rows(rows: Iterable[_Row]) -> Table:
    made = Table.grid(padding=(0, 2, 0, 0))
    for _ in range(3):
        made.add_column(overflow="fold")
    for sign, what, words, colour in rows:
        made.add_row(Text(f"  {sign}", colour), Text(what, colour), words)
    return made


def _show_generator(change: GeneratorChange) -> None:
    counts = {kind: sum(pool.kind == kind for pool in change.pools) for kind in ("new", "changed", "removed")}
    words = f"{plural(counts['new'], 'pool')} made, {counts['changed']} changed, {counts['removed']} removed"
    print_line(Text.assemble((f"nodepoolgenerator/{change.name} ", HEAD), f"({change.kind}): {words}"))
    if change.note:
        print_line(f"  {change.note}")
    if change.pools:
        print_line(_rows(map(_pool_row, change.pools)))
    if change.not_admitted_count:
        shown = ", ".join(f"{n.key} ({plural(n.nodes, 'node')}, {n.reason})" for n in change.not_admitted)
        more = change.not_admitted_count - len(change.not_admitted)
        print_line(f"  Not admitted: {shown}" + (f" and {more} more" if more else ""))


def _pool_row(change: PoolChange) -> _Row:
    match change.kind:
        case "new":
            return "+", change.name, plural(change.members_after, "member"), GOOD
        case "removed":
            later = f" when empty for {change.after_seconds} s" if change.after_seconds else ""
            return "-", change.name, f"removed{later}; has {plural(change.members_before, 'member')}", BAD
        case _:
            return "~", change.name, _moves(change), DOUBTFUL
