"""Last transitions of a node (requirement F2), newest first, from its Events and from Redis.

Redis is read only if its URL is given. It holds gained and lost types; Events hold messages of agents and operator.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal

import click

from hotpool.common.durations import parse
from hotpool.core.node_history import Transition
from hotpool.kube.reader import Reader

if TYPE_CHECKING:
    from hotpool.lookup import Lookup

_PER_SOURCE: Final = 10
_EARLIEST: Final = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One transition of a node."""

    time: str | None
    """RFC 3339; the last one of an Event series."""
    reason: str
    message: str
    source: Literal["Event", "Redis"]
    count: int = 1


async def of_node(reader: Reader, node: str, open_lookup: "Callable[[], Lookup] | None") -> list[HistoryEntry]:
    """Return the last ten transitions of each source. `open_lookup`: None to leave Redis out."""
    events = _newest(of_event(event) for event in await reader.events(node))
    return _newest([*events, *(await _read_redis(node, open_lookup) if open_lookup else [])], 2 * _PER_SOURCE)


def _newest(entries: Iterable[HistoryEntry], limit: int = _PER_SOURCE) -> list[HistoryEntry]:
    return sorted(entries, key=lambda item: parse(item.time) or _EARLIEST, reverse=True)[:limit]


async def _read_redis(node: str, open_lookup: "Callable[[], Lookup]") -> list[HistoryEntry]:
    """Return the history of a node in Redis. If Redis fails, print a warning and return nothing."""
    from hotpool.lookup import LookupUnavailableError

    try:
        async with open_lookup() as lookup:
            return [of_redis(item) for item in await lookup.transitions(node)]
    except (LookupUnavailableError, ValueError) as error:
        click.echo(f"warning: no transitions from Redis: {error}", err=True)
        return []


def of_event(event: Mapping[str, Any]) -> HistoryEntry:
    """Convert an Event of events.k8s.io. One created through core/v1 has its times in the deprecated fields."""
    series = event.get("series") or {}
    times = (
        series.get("lastObservedTime"),
        event.get("deprecatedLastTimestamp"),
        event.get("eventTime"),
        event["metadata"].get("creationTimestamp"),
    )
    count = series.get("count") or event.get("deprecatedCount") or 1
    time = next(filter(None, times), None)
    return HistoryEntry(time, event.get("reason") or "", event.get("note") or "", "Event", int(count))


def of_redis(item: Transition) -> HistoryEntry:
    """Convert a change of the Ready reason, of the ready types, or of both."""
    lost = [f"{type_} ({reason})" for type_, reason in item.lost.items()]
    parts = [
        f"{item.before or 'new'} -> {item.after}" if item.after else "",
        f"can serve {', '.join(item.gained)}" if item.gained else "",
        f"can no longer serve {', '.join(lost)}" if lost else "",
    ]
    return HistoryEntry(item.at, item.after or "TypesChanged", "; ".join(filter(None, parts)), "Redis")
