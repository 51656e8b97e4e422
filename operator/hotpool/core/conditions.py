"""Conditions with a stable lastTransitionTime: it changes only with the status, as Kubernetes' API conventions require.

Pure.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from hotpool.api.meta import Condition, Tristate

_MAX_MESSAGE_LENGTH: Final = 4096


@dataclass(frozen=True, slots=True)
class ConditionUpdate:
    """Desired type, status, reason and message of a condition."""

    type: str
    status: Tristate
    reason: str
    message: str = ""


def set_conditions(
    updates: Iterable[ConditionUpdate], before: Mapping[str, tuple[str, str]], generation: int, timestamp: str
) -> tuple[Condition, ...]:
    """Return the conditions to write. `before`: type → stored (status, lastTransitionTime); `timestamp`: RFC 3339."""
    return tuple(
        Condition(
            type=update.type,
            status=update.status,
            reason=update.reason,
            message=_truncate(update.message),
            observed_generation=generation,
            last_transition_time=_since(update, before.get(update.type), timestamp),
        )
        for update in updates
    )


def _truncate(message: str) -> str:
    return message if len(message) <= _MAX_MESSAGE_LENGTH else f"{message[: _MAX_MESSAGE_LENGTH - 1]}…"


def _since(update: ConditionUpdate, before: tuple[str, str] | None, timestamp: str) -> str:
    return before[1] if before and before[0] == update.status else timestamp
