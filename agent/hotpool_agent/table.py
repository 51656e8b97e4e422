"""Prints an agent's status for people. Called by `cli`; knows the shape of the status answer and nothing else."""

from datetime import UTC, datetime
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDTH: Final = 100
_STYLES: Final = {"Running": "green", "Failed": "red", "Starting": "yellow", "Stopping": "yellow", "Stopped": "dim"}
_UNITS: Final = ((86400, "d"), (3600, "h"), (60, "m"))


def show(status: dict[str, Any], console: Console | None = None) -> None:
    """Print the table, and below it what is wrong between the agent and the cluster."""
    console = console or Console(highlight=False)
    console.width = min(console.width, WIDTH) if console.is_terminal else WIDTH
    console.print(_table(status["services"]))
    for part, problem in status["problems"].items():
        console.print(Text(f"{part}: {problem}", style="red"), soft_wrap=True)


def age(since: str | None, now: datetime | None = None) -> str:
    """How long ago an API timestamp was, as kubectl says it: 5s, 12m, 3h, 2d."""
    if since is None:
        return "-"
    seconds = int(((now or datetime.now(UTC)) - datetime.fromisoformat(since)).total_seconds())
    for size, unit in _UNITS:
        if seconds >= 2 * size:
            return f"{seconds // size}{unit}"
    return f"{max(0, seconds)}s"


def _table(services: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="", expand=False)
    for name in ("ID", "TYPE", "STATE", "SINCE", "PORT", "PID", "RESTARTS", "DESIRED"):
        table.add_column(name, no_wrap=True, overflow="ellipsis", max_width=24)
    table.add_column("LAST ERROR", overflow="fold")
    for service in services:
        table.add_row(*(_cell(cell) for cell in _row(service)))
    return table


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
