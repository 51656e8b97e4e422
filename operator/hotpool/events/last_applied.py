"""The last state this operator wrote, used to detect edits by other clients (requirements D5, D10).

Pure. An uncertain state (after a start, or a write without a response) never counts as an edit by another client.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from hotpool.errors import RejectedError, StaleError

T = TypeVar("T")


@dataclass(slots=True)
class LastApplied(Generic[T]):
    """Children of one owner, such as the slices of a pool, as last written."""

    uid: str
    states: dict[str, T | None]
    """Child → state; None: uncertain."""
    before: Mapping[str, T | None] | None = None
    """The states at the start of the round in progress."""

    def is_edited(self, child: str, found: T | None) -> bool:
        """Return True if another client caused the state `found` of the child (None: it does not exist)."""
        known = self.states.get(child)
        return known != found and (known is not None or child not in self.states)

    @contextmanager
    def write(self, child: str) -> Iterator[None]:
        """Wrap one write, after which the caller sets the state. It is uncertain until a response arrives."""
        before = {child: self.states[child]} if child in self.states else {}
        self.states[child] = None
        try:
            yield
        except (StaleError, RejectedError):  # nothing was stored
            del self.states[child]
            self.states.update(before)
            raise

    def set(self, child: str, state: T | None) -> None:
        """Record the state of the child (None: it does not exist)."""
        self.states.pop(child, None)
        if state is not None:
            self.states[child] = state
