"""Conditions that keep their lastTransitionTime while their status stays, as Kubernetes' convention wants.

Pure.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from hotpool.api.meta import Condition, Tristate

_MAX_MESSAGE_LENGTH: Final = 4096


@dataclass(frozen=True, slots=True)
class ConditionUpdate:
    """What a condition shall say."""

    type: str
    status: Tristate
    reason: str
    message: str = ""


def set_conditions(
    claims: Iterable[ConditionUpdate], before: Mapping[str, tuple[str, str]], generation: int, now: str
) -> tuple[Condition, ...]:
    """The conditions to write. `before`: type → (status, lastTransitionTime) as stored; `now`: RFC 3339."""
    return tuple(
        Condition(
            type=claim.type,
            status=claim.status,
            reason=claim.reason,
            message=_truncate(claim.message),
            observed_generation=generation,
            last_transition_time=_since(claim, before.get(claim.type), now),
        )
        for claim in claims
    )


def _truncate(message: str) -> str:
    return message if len(message) <= _MAX_MESSAGE_LENGTH else f"{message[: _MAX_MESSAGE_LENGTH - 1]}…"


def _since(claim: ConditionUpdate, before: tuple[str, str] | None, now: str) -> str:
    return before[1] if before and before[0] == claim.status else now
