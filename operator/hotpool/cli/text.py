"""How the command line prints for people: ages as kubectl writes them, tables that fit the terminal.

Used by the commands. Colours and width are the terminal's: without one there are no colours and 80 columns.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final

import typer
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

_MINUTE: Final = 60
_HOUR: Final = 3600
_DAY: Final = 86400

GOOD: Final = "green"
BAD: Final = "red"
DOUBTFUL: Final = "yellow"
HEAD: Final = "bold"


def console() -> Console:
    """Where a command prints."""
    return Console(highlight=False, markup=False, emoji=False)


def say(*parts: RenderableType) -> None:
    """Print, without the blanks that fill a table's lines."""
    out = console()
    with out.capture() as captured:
        out.print(*parts, sep="\n")
    typer.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))


def parse(time: str | None) -> datetime | None:
    """A time of the API; None for what is none."""
    try:
        found = datetime.fromisoformat(time) if time else None
    except ValueError:
        return None
    return found if found is None or found.tzinfo else found.replace(tzinfo=UTC)


def seconds_since(time: str | None, now: datetime) -> float | None:
    """How long ago that was; negative where the clock that wrote it is ahead of ours."""
    found = parse(time)
    return None if found is None else (now - found).total_seconds()


def age(seconds: float | None) -> str:
    """A duration in at most two units, as kubectl writes it; a dash where it is not known."""
    if seconds is None:
        return "-"
    sign, whole = ("-" if seconds <= -1 else ""), int(abs(seconds))
    if whole < 2 * _MINUTE:
        return f"{sign}{whole}s"
    if whole < 10 * _MINUTE:
        return f"{sign}{_two(whole // _MINUTE, 'm', whole % _MINUTE, 's')}"
    if whole < 3 * _HOUR:
        return f"{sign}{whole // _MINUTE}m"
    if whole < 8 * _HOUR:
        return f"{sign}{_two(whole // _HOUR, 'h', whole % _HOUR // _MINUTE, 'm')}"
    return f"{sign}{whole // _HOUR}h" if whole < 2 * _DAY else f"{sign}{whole // _DAY}d"


def _two(first: int, unit: str, second: int, smaller: str) -> str:
    return f"{first}{unit}{second}{smaller}" if second else f"{first}{unit}"


def ago(time: str | None, now: datetime) -> str:
    """How long ago a time of the API was."""
    return age(seconds_since(time, now))


def table(columns: Sequence[str], rows: Iterable[Sequence[str | Text]], *, right: Iterable[str] = ()) -> Table:
    """Plain columns; long words are folded, never cut off. `right`: the columns of numbers."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style=HEAD, show_edge=False)
    for column in columns:
        numeric = column in right
        made.add_column(column, overflow="fold", justify="right" if numeric else "left", no_wrap=numeric)
    for row in rows:
        made.add_row(*row)
    return made


def listing(items: Iterable[str]) -> Table:
    """One item each line, with a dash; what is longer is wrapped behind it."""
    made = Table.grid(padding=(0, 1, 0, 0))
    made.add_column(width=1)
    made.add_column(overflow="fold")
    for item in items:
        made.add_row("-", item)
    return made


def plural(count: int, noun: str) -> str:
    """`1 node`, `2 nodes`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"
