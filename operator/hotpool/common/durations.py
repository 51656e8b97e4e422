"""API times, and durations as text in the format of kubectl."""

from datetime import UTC, datetime
from typing import Final

_MINUTE: Final = 60
_HOUR: Final = 3600
_DAY: Final = 86400


def parse(time: str | None) -> datetime | None:
    """Parse an API time. Return None for a missing or invalid one; a time without zone is UTC."""
    try:
        parsed = datetime.fromisoformat(time) if time else None
    except ValueError:
        return None
    return parsed if parsed is None or parsed.tzinfo else parsed.replace(tzinfo=UTC)


def seconds_since(time: str | None, now: datetime) -> float | None:
    """Return the seconds since an API time, or None. Negative if the clock of its writer is ahead."""
    parsed = parse(time)
    return None if parsed is None else (now - parsed).total_seconds()


def age(seconds: float | None) -> str:
    """Format seconds with at most two units, as kubectl does: 90s, 5m12s, 3h, 2d. None is a dash."""
    if seconds is None:
        return "-"
    sign, whole = ("-" if seconds <= -1 else ""), int(abs(seconds))
    if whole < 2 * _MINUTE:
        return f"{sign}{whole}s"
    if whole < 10 * _MINUTE:
        return f"{sign}{_two_units(whole // _MINUTE, 'm', whole % _MINUTE, 's')}"
    if whole < 3 * _HOUR:
        return f"{sign}{whole // _MINUTE}m"
    if whole < 8 * _HOUR:
        return f"{sign}{_two_units(whole // _HOUR, 'h', whole % _HOUR // _MINUTE, 'm')}"
    return f"{sign}{whole // _HOUR}h" if whole < 2 * _DAY else f"{sign}{whole // _DAY}d"


def _two_units(first: int, unit: str, second: int, smaller: str) -> str:
    return f"{first}{unit}{second}{smaller}" if second else f"{first}{unit}"


def ago(time: str | None, now: datetime) -> str:
    """Format the time since an API time as `age` does."""
    return age(seconds_since(time, now))
