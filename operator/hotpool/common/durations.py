"""Times of the API, and durations in text as kubectl writes them."""

from datetime import UTC, datetime
from typing import Final

_MINUTE: Final = 60
_HOUR: Final = 3600
_DAY: Final = 86400


def parse(time: str | None) -> datetime | None:
    """A time of the API; None for what is none."""
    try:
        found = datetime.fromisoformat(time) if time else None
    except ValueError:
        return None
    return found if found is None or found.tzinfo else found.replace(tzinfo=UTC)


def seconds_since(time: str | None, now: datetime) -> float | None:
    """How long ago that was; negative where the clock that wrote it is ahead of ours."""
    found = parse(time)
    return None if found is None else (now - found).total_seconds()


def age(seconds: float | None) -> str:
    """A duration in at most two units, as kubectl writes it; a dash where it is not known."""
    if seconds is None:
        return "-"
    sign, whole = ("-" if seconds <= -1 else ""), int(abs(seconds))
    if whole < 2 * _MINUTE:
        return f"{sign}{whole}s"
    if whole < 10 * _MINUTE:
        return f"{sign}{_two(whole // _MINUTE, 'm', whole % _MINUTE, 's')}"
    if whole < 3 * _HOUR:
        return f"{sign}{whole // _MINUTE}m"
    if whole < 8 * _HOUR:
        return f"{sign}{_two(whole // _HOUR, 'h', whole % _HOUR // _MINUTE, 'm')}"
    return f"{sign}{whole // _HOUR}h" if whole < 2 * _DAY else f"{sign}{whole // _DAY}d"


def _two(first: int, unit: str, second: int, smaller: str) -> str:
    return f"{first}{unit}{second}{smaller}" if second else f"{first}{unit}"


def ago(time: str | None, now: datetime) -> str:
    """How long ago a time of the API was."""
    return age(seconds_since(time, now))
