"""Text output of `diff`."""

from collections.abc import Iterable

from rich.table import Table
from rich.text import Text

from hotpool.cli.differences import Difference
from hotpool.cli.render.tables import BAD, BOLD, GOOD, WARNING, plural, print_line, print_warning, sentence
from hotpool.core.explain.dry_run import GeneratorChange, PoolChange

_Row = tuple[str, str, str, str]
"""Sign, name, text, colour."""


def show(found: Difference) -> None:
    """Print the changes of each manifest, pools first."""
    print_warning(found.warning and f"WARNING: {found.warning}.")
    for change in found.pools:
        _show_pool(change, found.undeclared.get(change.name, ()))
    for generator in found.generators:
        _show_generator(generator)


def _show_pool(change: PoolChange, undeclared: Iterable[str]) -> None:
    print_line(Text.assemble((f"nodepool/{change.name} ", BOLD), f"({change.kind}): {_counts(change)}"))
    if change.ready_before != change.ready_after:
        print_line(f"  Ready: {_ready(change.ready_before)} -> {_ready(change.ready_after)}")
    if reason := _no_member(change):
        print_line(Text(f"  {sentence(reason)}.", WARNING))
    for text in undeclared:
        print_line(Text(f"  {sentence(text)}.", WARNING))
    rows: list[_Row] = [("+", node, state, GOOD) for node, state in change.joins.items()]
    rows += [("-", node, reason, BAD) for node, reason in change.leaves.items()]
    if rows:
        print_line(_rows(rows))


def _no_member(change: PoolChange) -> str:
    """Return why the pool would have no member, empty if it would have one or be removed."""
    if change.members_after or change.kind == "removed":
        return ""
    counts = ", ".join(f"{plural(count, 'node')} {reason}" for reason, count in change.reasons.items())
    return f"no member: {'; '.join(filter(None, (change.withheld, counts))) or 'there is no node'}"


def _ready(ready: bool | None) -> str:  # noqa: FBT001 - a value, not a switch.
    return "no pool" if ready is None else str(ready)


def _counts(change: PoolChange) -> str:
    counts = f"{change.members_before} -> {plural(change.members_after, 'member')}"
    return f"{len(change.joins)} would join, {len(change.leaves)} leave, {counts}"


def _rows(rows: Iterable[_Row]) -> Table:
    grid = Table.grid(padding=(0, 2, 0, 0))
    for _ in range(3):
        grid.add_column(overflow="fold")
    for sign, name, text, colour in rows:
        grid.add_row(Text(f"  {sign}", colour), Text(name, colour), text)
    return grid


def _show_generator(change: GeneratorChange) -> None:
    counts = {kind: sum(pool.kind == kind for pool in change.pools) for kind in ("new", "changed", "removed")}
    text = f"{plural(counts['new'], 'pool')} created, {counts['changed']} changed, {counts['removed']} removed"
    print_line(Text.assemble((f"nodepoolgenerator/{change.name} ", BOLD), f"({change.kind}): {text}"))
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
            return "+", change.name, _no_member(change) or plural(change.members_after, "member"), GOOD
        case "removed":
            later = f" when empty for {change.after_seconds} s" if change.after_seconds else ""
            return "-", change.name, f"removed{later}; has {plural(change.members_before, 'member')}", BAD
        case _:
            reason = _no_member(change)
            return "~", change.name, _counts(change) + (f"; {reason}" if reason else ""), WARNING
