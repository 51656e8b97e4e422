"""Aggregation of Events: repeated Events are folded into one; rate and memory are bounded.

Pure: `now` is monotonic seconds, `at` is RFC 3339. A folded Event is a new object with a series: the text of a
stored Event must not change, and an old text with a higher count would be wrong.
"""

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Final

from hotpool.api.meta import API_VERSION
from hotpool.events.messages import Content, fold, note

QUIET_SECONDS: Final = 10.0
"""Shortest time between two Events with the same object and reason."""
RATE: Final = 5.0
"""Events per second, of all objects together, after BURST is used up."""
BURST: Final = 25
MAX_TRACKED: Final = 500
"""Pending Events per rank; more are dropped."""
_RANKS: Final = {"Lease": 0, "NodePool": 1, "NodePoolGenerator": 1, "NodeCapability": 2}
"""Order of posting: Events of the fleet first, those of single nodes last."""


@dataclass(frozen=True, slots=True)
class EventObject:
    """Object that an Event regards."""

    kind: str
    name: str
    uid: str
    api_version: str = API_VERSION


@dataclass(frozen=True, slots=True)
class EventDraft:
    """Event before aggregation. `reason` and `action` are CamelCase words for programs."""

    reason: str
    action: str
    content: Content
    warning: bool = False


@dataclass(frozen=True, slots=True)
class Event:
    """Event to post: `count` occurrences from `first` to `last`."""

    regarding: EventObject
    reason: str
    action: str
    note: str
    warning: bool
    first: str
    last: str
    count: int


@dataclass(slots=True)
class _Pending:
    draft: EventDraft
    due: float
    first: str
    last: str
    count: int = 1


_Key = tuple[EventObject, str]


@dataclass(slots=True)
class EventAggregator:
    """Pending Events, and the times of those posted lately."""

    _pending: dict[_Key, _Pending] = field(default_factory=dict)
    _ranks: Counter[int] = field(default_factory=Counter)
    _posted: dict[_Key, float] = field(default_factory=dict)
    """Times of the Events posted in the last QUIET_SECONDS; the rate bounds their number."""
    _tokens: float = BURST
    _counted: float | None = None
    """Time at which `_tokens` was computed."""

    @property
    def waiting(self) -> int:
        """Number of pending Events."""
        return len(self._pending)

    def add(self, regarding: EventObject, draft: EventDraft, at: str, now: float) -> bool:
        """Add an Event or fold it into a pending one. Return False if it is dropped."""
        key, rank = (regarding, draft.reason), _RANKS.get(regarding.kind, 1)
        pending = self._pending.get(key)
        if pending:
            _merge(pending, draft, at)
            return True
        if self._ranks[rank] >= MAX_TRACKED:
            return False
        posted_at = self._posted.get(key)
        due = now if posted_at is None else max(now, posted_at + QUIET_SECONDS)
        self._pending[key] = _Pending(draft, due, first=at, last=at)
        self._ranks[rank] += 1
        return True

    def take(self, now: float) -> list[Event]:
        """Return the Events to post now, the most important first."""
        self._posted = {key: posted_at for key, posted_at in self._posted.items() if now < posted_at + QUIET_SECONDS}
        due = [key for key, item in self._pending.items() if item.due <= now]
        due.sort(key=lambda key: (_RANKS.get(key[0].kind, 1), self._pending[key].due))
        return [self._pop(key, now) for key in due[: self._spend_tokens(len(due), now)]]

    def _spend_tokens(self, count: int, now: float) -> int:
        """Return how many of `count` Events the rate allows, and count them as posted."""
        elapsed = 0.0 if self._counted is None else now - self._counted
        self._counted = now
        self._tokens = min(float(BURST), self._tokens + elapsed * RATE)
        allowed = min(count, int(self._tokens))
        self._tokens -= allowed
        return allowed

    def _pop(self, key: _Key, now: float) -> Event:
        item = self._pending.pop(key)
        self._ranks[_RANKS.get(key[0].kind, 1)] -= 1
        self._posted[key] = now
        draft = item.draft
        text = note(draft.content, folded=item.count > 1)
        return Event(key[0], draft.reason, draft.action, text, draft.warning, item.first, item.last, item.count)


def _merge(pending: _Pending, newer: EventDraft, at: str) -> None:
    pending.draft = replace(newer, content=fold(pending.draft.content, newer.content))
    pending.last = at
    pending.count += 1
