"""Text output: tables with the width and colours of the terminal; without a terminal, 80 columns and no colours."""

from collections.abc import Iterable, Sequence
from typing import Final

import click
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

GOOD: Final = "green"
BAD: Final = "red"
WARNING: Final = "yellow"
BOLD: Final = "bold"


def console() -> Console:
    """Return a console for standard output, without markup."""
    return Console(highlight=False, markup=False, emoji=False)


def print_line(*parts: RenderableType) -> None:
    """Print lines without the trailing blanks of tables."""
    out = console()
    with out.capture() as captured:
        out.print(*parts, sep="\n")
    click.echo("\n".join(line.rstrip() for line in captured.get().splitlines()))


def print_warning(warning: str) -> None:
    """Print the first line of an output that may be old; nothing for an empty one."""
    if warning:
        print_line(Text(warning, BAD))


def table(columns: Sequence[str], rows: Iterable[Sequence[str | Text]], *, right: Iterable[str] = ()) -> Table:
    """Return a table without borders, whose long words are folded and never cut off. `right`: columns of numbers."""
    result = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style=BOLD, show_edge=False)
    for column in columns:
        numeric = column in right
        result.add_column(column, overflow="fold", justify="right" if numeric else "left", no_wrap=numeric)
    for row in rows:
        result.add_row(*row)
    return result


def listing(items: Iterable[str]) -> Table:
    """Return a list with a dash before each item; long items are wrapped."""
    grid = Table.grid(padding=(0, 1, 0, 0))
    grid.add_column(width=1)
    grid.add_column(overflow="fold")
    for item in items:
        grid.add_row("-", item)
    return grid


def plural(count: int, noun: str) -> str:
    """Return `1 node` or `2 nodes`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def sentence(text: str) -> str:
    """Return the text with a capital at its start."""
    return text[:1].upper() + text[1:]
