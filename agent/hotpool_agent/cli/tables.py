"""Prints tables for people, first of all an agent's status. colours only on a terminal.

Knows the shape of the status answer and nothing else of the agent.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDTH: Final = 100
_STYLES: Final = {"Running": "green", "Failed": "red", "Starting": "yellow", "Stopping": "yellow", "Stopped": "dim"}
_UNITS: Final = ((86400, "d"), (3600, "h"), (60, "m"))


def show(status: dict[str, Any], console: Console | None = None) -> None:
    """Print the table, and below it how the agent and the cluster hear each other."""
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
    """Print any rows under titles."""
    table = _table(titles)
    for row in rows:
        table.add_row(*map(_cell, row))
    (console or _console()).print(table)


def age(since: str | None, now: datetime | None = None) -> str:
    """How long ago an API timestamp was, as kubectl says it: 5s, 12m, 3h, 2d."""
    if since is None:
        return "-"
    seconds = int(((now or datetime.now(UTC)) - datetime.fromisoformat(since)).total_seconds())
    for size, unit in _UNITS:
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}"
    return f"{max(0, seconds)}s"


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
    """Two short lines: what the cluster has heard, and where the metrics are."""
    accepted = status["acceptedAt"]
    heard = f"last report accepted {age(accepted)} ago" if accepted else "no report accepted yet"
    where = f"node {status['node']}, namespace {status['namespace']}: {heard}"
    return Text(f"{where}\nmetrics: http://{status['listening']}/metrics", style="dim")


def _row(service: dict[str, Any]) -> tuple[Any, ...]:
    return (
        service["id"],
        service["type"],
        Text(service["state"], style=_STYLES.get(service["state"], "")),
        age(service["since"]),
        service["port"],
        service["pid"],
        service["restarts"],
        service["desired"],
        service["lastError"],
    )


def _cell(value: Any) -> Text:
    return value if isinstance(value, Text) else Text("-" if value is None else str(value))
