"""The demo's screen: members of each pool and the last changes. Must not query or change anything."""

import time
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from demo.change_watcher import Change, Observer

_SHOWN_CHANGES: Final = 6
_FRESH_SECONDS: Final = 3.0
_BOTH, _ONE, _NONE = "●", "◐", "·"


def render_screen(seen: Observer, nodes: Sequence[str]) -> RenderableType:
    """Return the whole screen: 80 columns, one row for each pool."""
    with seen.changed:
        return Group(_pools(seen, nodes), _legend(), _changes(seen.changes[-_SHOWN_CHANGES:]))


def _pools(seen: Observer, nodes: Sequence[str]) -> Table:
    table = Table(box=None, padding=(0, 1), pad_edge=False)
    table.add_column("pool", min_width=24)
    table.add_column("ready")
    for node in nodes:
        table.add_column(node, justify="center")
    now = time.time()
    fresh = {
        (change.node, pool) for change in seen.changes for pool in change.pools if now - change.at < _FRESH_SECONDS
    }
    for name, body in sorted(seen.pools.items()):
        ready = (body.get("status") or {}).get("ready", "")
        cells = [_cell(seen, name, node, fresh=(node, name) in fresh) for node in nodes]
        table.add_row(name, Text(ready, style="green" if ready == "True" else "yellow"), *cells)
    return table


def _cell(seen: Observer, pool: str, node: str, *, fresh: bool) -> Text:
    places = (node in seen.slices.get(pool, {}), node in seen.redis.get(pool, set()))
    mark = _BOTH if all(places) else _ONE if any(places) else _NONE
    style = "green" if all(places) else "yellow" if any(places) else "dim"
    return Text(f" {mark} ", style=f"bold reverse {style}" if fresh else style)


def _legend() -> Text:
    marks = f"{_BOTH} in slices and Redis   {_ONE} in one of them   {_NONE} not a member"
    return Text(f"\n{marks}\nA loss is reported at once, a gain after two quiet seconds.\n", style="dim")


def _changes(changes: Sequence[Change]) -> Table:
    """Return the table of changes: time, node, change, and milliseconds of each stage since the agent's timestamp."""
    table = Table(box=None, padding=(0, 1), pad_edge=False)
    for title in ("when", "what changed", "and so"):
        table.add_column(title)
    for title in ("report", "Redis", "slices, ms"):
        table.add_column(title, justify="right")
    for change in changes:
        what = f"{change.node} " + (
            f"stopped {_words(change.lost)}" if change.lost else f"started {_words(change.gained)}"
        )
        count = f"{len(change.pools)} pool" + ("" if len(change.pools) == 1 else "s")
        where = f"{'left' if change.lost else 'joined'} {count}"
        stages = (change.report, change.redis, change.slices)
        spent = (f"{1000 * (at - change.at):.0f}" if at else "" for at in stages)
        table.add_row(f"{datetime.fromtimestamp(change.at).astimezone():%H:%M:%S}", what, where, *spent)
    return table


def _words(names: Collection[str]) -> str:
    """Return the first name and the number of others."""
    first, *more = sorted(names, key=lambda name: (len(name), name))
    return first + (f" and {len(more)} more" if more else "")
