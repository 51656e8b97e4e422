"""A node's last transitions (requirement F2), newest first: the Events that regard it, and what Redis remembers of it.

This is the one place that knows where transitions come from. Redis is asked only where its URL is given; it knows the
types that came and went, Events know what agents and the operator had to say.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

import typer

from hotpool.common.durations import parse
from hotpool.core.node_history import Transition
from hotpool.kube.reader import Reader

_KEPT: Final = 10
_LONG_AGO: Final = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """Something that happened to a node."""

    time: str | None
    """RFC 3339; of a series the last."""
    reason: str
    message: str
    source: Literal["Event", "Redis"]
    count: int = 1


@dataclass(frozen=True, slots=True)
class RedisSource:
    """Where to ask for what Redis remembers."""

    url: str
    prefix: str
    namespace: str


async def of_node(reader: Reader, node: str, redis: RedisSource | None) -> list[HistoryEntry]:
    """The last ten of each source."""
    told = _newest(of_event(event) for event in await reader.events(node))
    return _newest([*told, *(await _remembered(node, redis) if redis else [])], 2 * _KEPT)


def _newest(found: Iterable[HistoryEntry], limit: int = _KEPT) -> list[HistoryEntry]:
    return sorted(found, key=lambda item: parse(item.time) or _LONG_AGO, reverse=True)[:limit]


async def _remembered(node: str, redis: RedisSource) -> list[HistoryEntry]:
    """What Redis has of it; where it does not answer, the rest of the answer stands and a warning says so."""
    from hotpool.lookup import Lookup, LookupUnavailableError

    try:
        async with Lookup.from_url(redis.url, namespace=redis.namespace, prefix=redis.prefix) as lookup:
            return [of_redis(item) for item in await lookup.transitions(node)]
    except (LookupUnavailableError, ValueError) as error:
        typer.echo(f"warning: no transitions from Redis: {error}", err=True)
        return []


def of_event(event: Mapping[str, Any]) -> HistoryEntry:
    """An Event of events.k8s.io; one made through the old API has its times in the deprecated fields."""
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
    """A change of the Ready reason, of the types that the node can serve, or of both."""
    lost = [f"{type_} ({why})" for type_, why in item.lost.items()]
    words = [
        f"{item.before or 'new'} -> {item.after}" if item.after else "",
        f"can serve {', '.join(item.gained)}" if item.gained else "",
        f"can no longer serve {', '.join(lost)}" if lost else "",
    ]
    return HistoryEntry(item.at, item.after or "TypesChanged", "; ".join(filter(None, words)), "Redis")
