"""A node's last transitions (behaviour F2), newest first: from the Events that regard its NodeCapability.

Used by `why --node`. This is the one place that knows where transitions come from.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from hotpool.clients import Reader

_SHOWN: Final = 10


@dataclass(frozen=True, slots=True)
class Transition:
    """Something that happened to a node."""

    time: str | None
    """RFC 3339; of a series the last."""
    reason: str
    message: str
    count: int = 1


async def of_node(reader: Reader, node: str) -> list[Transition]:
    """The last ten."""
    found = [_of_event(event) for event in await reader.events(node)]
    return sorted(found, key=lambda item: item.time or "", reverse=True)[:_SHOWN]


def _of_event(event: Mapping[str, Any]) -> Transition:
    """An Event of events.k8s.io; one made through the old API has its times in the deprecated fields."""
    series = event.get("series") or {}
    times = (
        series.get("lastObservedTime"),
        event.get("deprecatedLastTimestamp"),
        event.get("eventTime"),
        event["metadata"].get("creationTimestamp"),
    )
    count = series.get("count") or event.get("deprecatedCount") or 1
    return Transition(next(filter(None, times), None), event.get("reason") or "", event.get("note") or "", int(count))
