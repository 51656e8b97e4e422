"""Tables for people, such as the status of an agent. Colours only on a terminal.

Depends on the shape of the status response and on nothing else of the agent.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from hotpool.common.durations import ago

WIDTH: Final = 100
_STYLES: Final = {"Running": "green", "Failed": "red", "Starting": "yellow", "Stopping": "yellow", "Stopped": "dim"}


def show(status: dict[str, Any], console: Console | None = None) -> None:
    """Print the services, and below them the last accepted report, the metrics address and all problems."""
    console = console or _console()
    table = _table(("ID", "TYPE", "STATE", "SINCE", "PORT", "PID", "RESTARTS", "DESIRED"))
    table.add_column("LAST ERROR", overflow="fold")
    for service in status["services"]:
        table.add_row(*(_cell(cell) for cell in _row(service)))
    console.print(table)
    console.print()
    console.print(_summary(status), soft_wrap=True)
    for part, problem in status["problems"].items():
        console.print(Text(f"{part}: {problem}", style="red"), soft_wrap=True)


def show_rows(titles: Sequence[str], rows: Iterable[Sequence[Any]], console: Console | None = None) -> None:
    """Print rows below column titles."""
    table = _table(titles)
    for row in rows:
        table.add_row(*map(_cell, row))
    (console or _console()).print(table)


def _console() -> Console:
    console = Console(highlight=False)
    console.width = min(console.width, WIDTH) if console.is_terminal else WIDTH
    return console


def _table(titles: Sequence[str]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="", expand=False)
    for title in titles:
        table.add_column(title, no_wrap=True, overflow="ellipsis", max_width=24)
    return table


def _summary(status: dict[str, Any]) -> Text:
    """Return two lines: the age of the last accepted report, and the address of the metrics."""
    accepted = status["acceptedAt"]
    last = f"last report accepted {ago(accepted, datetime.now(UTC))} ago" if accepted else "no report accepted yet"
    head = f"node {status['node']}, namespace {status['namespace']}: {last}"
    return Text(f"{head}\nmetrics: http://{status['listening']}/metrics", style="dim")


def _row(service: dict[str, Any]) -> tuple[Any, ...]:
    return (
        service["id"],
        service["type"],
        Text(service["state"], style=_STYLES.get(service["state"], "")),
        ago(service["since"], datetime.now(UTC)),
        service["port"],
        service["pid"],
        service["restarts"],
        service["desired"],
        service["lastError"],
    )


def _cell(value: Any) -> Text:
    return value if isinstance(value, Text) else Text("-" if value is None else str(value))
