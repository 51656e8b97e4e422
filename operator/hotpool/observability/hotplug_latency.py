"""Hot-plug latency by stage (requirement F4): from an agent's report to the write of a pool that follows from it.

Stages across machines (report, total_…) need two clocks that agree: only non-negative times count.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from hotpool.observability.metrics import HOTPLUG, HOTPLUG_UNKNOWN

STAGES: Final = {"kubernetes": "slice", "redis": "redis"}
"""Target → stage of its write."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A report that a watch delivered."""

    at: float
    """Monotonic seconds."""
    age: float | None
    """Seconds from the time in the report until then; None: unknown."""


def seen(stamp: str, now: float, unix: float) -> Seen:
    """Return a report received `now`. `stamp`: its time, RFC 3339; `unix`: the present time in Unix seconds."""
    try:
        reported = datetime.fromisoformat(stamp)
        return Seen(now, unix - reported.timestamp() if reported.tzinfo else None)
    except (ValueError, OverflowError):
        return Seen(now, None)


def observe(target: str, direction: Literal["gain", "withdrawal"], report: Seen, began: float, ended: float) -> None:
    """Record the write of a pool, from its plan (`began`) to the response (`ended`), in monotonic seconds."""
    stage = STAGES.get(target, target)
    if target == "kubernetes":
        _observe("report", direction, report.age)
        _observe("plan", direction, began - report.at)
    _observe(stage, direction, ended - began)
    old = report.age is None or report.age < 0
    _observe(f"total_{stage}", direction, None if old else (report.age or 0.0) + ended - report.at)


def _observe(stage: str, direction: str, seconds: float | None) -> None:
    if seconds is None or seconds < 0:
        HOTPLUG_UNKNOWN.labels(stage).inc()
    else:
        HOTPLUG.labels(stage, direction).observe(seconds)
