"""Conditions with a stable lastTransitionTime: it changes only with the status, as Kubernetes' API conventions require.

Pure.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from hotpool.api.meta import MAX_CONDITIONS, Condition, Tristate
from hotpool.core.declared_words import Undeclared

_MAX_MESSAGE_LENGTH: Final = 4096


@dataclass(frozen=True, slots=True)
class ConditionUpdate:
    """Desired type, status, reason and message of a condition."""

    type: str
    status: Tristate
    reason: str
    message: str = ""


PAUSE_IGNORED: Final = "PauseIgnored"
"""Condition of a pool or generator whose annotation `paused` has no effect."""


def pause_ignored(problem: str) -> tuple[ConditionUpdate, ...]:
    """Return the condition PauseIgnored with a problem, else nothing."""
    return (ConditionUpdate(PAUSE_IGNORED, "True", "InvalidAnnotation", problem),) if problem else ()


UNKNOWN_REQUIREMENT: Final = "UnknownRequirement"
"""Condition of a pool or generator that requires what no service has."""
_MAX_UNDECLARED: Final = 5
"""Words named in a message; of the others it has the number."""


def unknown_requirement(found: Iterable[Undeclared]) -> tuple[ConditionUpdate, ...]:
    """Return the condition UnknownRequirement with the reason of the first word, nothing without any."""
    words = tuple(found)
    if not words:
        return ()
    more = len(words) - _MAX_UNDECLARED
    text = "; also, ".join(word.text for word in words[:_MAX_UNDECLARED]) + (f"; and {more} more" if more > 0 else "")
    return (ConditionUpdate(UNKNOWN_REQUIREMENT, "True", words[0].reason, text),)


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


def update_conditions(
    updates: Iterable[ConditionUpdate],
    stored: Sequence[Condition],
    owned: Collection[str],
    generation: int,
    timestamp: str,
) -> tuple[Condition, ...]:
    """Return the conditions to write: the updates, and as many stored ones of other writers as fit, unchanged.

    `owned`: types that the operator writes. Stored types keep their order, so that nothing is written for it alone.
    """
    before = {condition.type: (condition.status, condition.last_transition_time) for condition in stored}
    own = set_conditions(updates, before, generation, timestamp)
    foreign = [condition for condition in stored if condition.type not in owned][: MAX_CONDITIONS - len(own)]
    order = {condition.type: index for index, condition in enumerate(stored)}
    return tuple(sorted((*own, *foreign), key=lambda condition: order.get(condition.type, len(order))))


def _truncate(message: str) -> str:
    return message if len(message) <= _MAX_MESSAGE_LENGTH else f"{message[: _MAX_MESSAGE_LENGTH - 1]}…"


def _since(update: ConditionUpdate, before: tuple[str, str] | None, timestamp: str) -> str:
    return before[1] if before and before[0] == update.status else timestamp
