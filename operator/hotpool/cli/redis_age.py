"""Age of the projection in Redis, for people. Must stay quick to import."""

from typing import Final

from hotpool.common.durations import age

MAX_REDIS_AGE: Final = 15.0
"""Seconds; the leader stamps Redis every 5 s."""


def is_old(age_seconds: float | None) -> bool:
    """Return True if no operator has confirmed the projection lately. None: never."""
    return age_seconds is None or age_seconds > MAX_REDIS_AGE


def confirmed_text(age_seconds: float | None) -> str:
    """Return `confirmed 3s ago`."""
    return "never confirmed by an operator" if age_seconds is None else f"confirmed {age(age_seconds)} ago"
