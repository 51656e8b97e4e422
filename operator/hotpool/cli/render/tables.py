"""How the command line prints for people: tables that fit the terminal.

Colours and width are the terminal's: without one there are no colours and 80 columns.
"""

from collections.abc import Iterable, Sequence
from typing import Final

import typer
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

GOOD: Final = "green"
BAD: Final = "red"
DOUBTFUL: Final = "yellow"
HEAD: Final = "bold"


def console() -> Console:
    """Where a command prints."""
    return Console(highlight=False, markup=False, emoji=False)


def print_line(*parts: RenderableType) -> None:
    """Print, without the blanks that fill a table's lines."""
    out = console()
    with out.capture() as captured:
        out.print(*parts, sep="\n")
    typer.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))


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
