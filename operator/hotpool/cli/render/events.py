"""Text output of `hotpool events`: how far back each source reaches, and a table, the oldest entry first."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from hotpool.cli.render.tables import print_line, table
from hotpool.cli.timeline import Entry, Origin, Source

_NAMES: Final[dict[Origin, str]] = {"Event": "Events", "Redis": "Redis", "Log": "log"}
_OPTIONS: Final[dict[Origin, str]] = {"Redis": "--redis", "Log": "--log"}


def show_events(begin: datetime, sources: Sequence[Source], entries: Sequence[Entry]) -> None:
    """Print the sources, then the entries. Times are in UTC."""
    print_line("; ".join([*(_reach(source) for source in sources), *_missing(sources)]))
    if not entries:
        print_line(f"Nothing since {_time(begin)} UTC, as far as these sources reach.")
        return
    rows = [
        (
            _time(entry.time),
            entry.origin,
            f"{entry.kind}/{entry.name}" if entry.name else entry.kind,
            entry.reason,
            entry.message + (f" (x{entry.count})" if entry.count > 1 else ""),
        )
        for entry in entries
    ]
    print_line("", table(("TIME (UTC)", "FROM", "OBJECT", "WHAT", "MESSAGE"), rows))


def _reach(source: Source) -> str:
    reach = f"back to {_time(source.reaches)}" if source.reaches else "none"
    kept = " (kept 1h by default)" if source.origin == "Event" else ""
    return f"{_NAMES[source.origin]}: {reach}{kept}" + (f" ({source.problem})" if source.problem else "")


def _missing(sources: Sequence[Source]) -> list[str]:
    """Return the sources that were not asked for."""
    read = {source.origin for source in sources}
    return [f"{_NAMES[origin]}: not read ({option})" for origin, option in _OPTIONS.items() if origin not in read]


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%m-%d %H:%M:%S")
