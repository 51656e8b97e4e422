"""What is to be told as Events, when, and how much of it: storms are folded, the rate and the memory are bounded.

Held by the narrator, which says what happened and posts what `take` gives. Pure: `now` is monotonic seconds, `at` is
RFC 3339. What happened is found by `events.builders`. A folded storm is a new Event with a series, because
events.k8s.io/v1 keeps the note of an Event that was once written, and an old note with a higher count would be wrong.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from hotpool.api.meta import API_VERSION
from hotpool.events.messages import Content

QUIET_SECONDS: Final = 10.0
"""At most one Event for an object and a reason in this time."""
RATE: Final = 5.0
"""Events in a second, of all objects together, when BURST is used up."""
BURST: Final = 25
MAX_TRACKED: Final = 500
"""Events that wait, for each rank; what finds no room is not told."""
_RANKS: Final = {"Lease": 0, "NodePool": 1, "NodePoolGenerator": 1, "NodeCapability": 2}
"""The fleet's Events go first, those of single nodes last."""


@dataclass(frozen=True, slots=True)
class EventObject:
    """The object that an Event regards."""

    kind: str
    name: str
    uid: str
    api_version: str = API_VERSION


@dataclass(frozen=True, slots=True)
class EventDraft:
    """One thing that happened to an object. `reason` and `action` are CamelCase words for programs."""

    reason: str
    action: str
    content: Content
    warning: bool = False


@dataclass(frozen=True, slots=True)
class Event:
    """One Event to post: `count` things that happened from `first` to `last`."""

    regarding: EventObject
    reason: str
    action: str
    note: str
    warning: bool
    first: str
    last: str
    count: int


@dataclass(slots=True)
class _Waiting:
    draft: EventDraft
    due: float
    first: str
    last: str
    count: int = 1


_Key = tuple[EventObject, str]


@dataclass(slots=True)
class EventAggregator:
    """What waits to be told, and what was told lately."""

    _waiting: dict[_Key, _Waiting] = field(default_factory=dict)
    _ranks: Counter[int] = field(default_factory=Counter)
    _posted: dict[_Key, float] = field(default_factory=dict)
    """When each was told; only of the last QUIET_SECONDS, so that the rate bounds it."""
    _tokens: float = BURST
    _counted: float | None = None
    """When `_tokens` was counted."""

    @property
    def waiting(self) -> int:
        """How many Events wait."""
        return len(self._waiting)

    def add(self, about: EventObject, happening: EventDraft, at: str, now: float) -> bool:
        """Take in what happened; False where there is no room for it."""
        key, rank = (about, happening.reason), _RANKS.get(about.kind, 1)
        known = self._waiting.get(key)
        if known:
            _merge(known, happening, at)
            return True
        if self._ranks[rank] >= MAX_TRACKED:
            return False
        told = self._posted.get(key)
        due = now if told is None else max(now, told + QUIET_SECONDS)
        self._waiting[key] = _Waiting(happening, due, first=at, last=at)
        self._ranks[rank] += 1
        return True

    def take(self, now: float) -> list[Event]:
        """The Events that may be posted now, the most important first."""
        self._posted = {key: told for key, told in self._posted.items() if now < told + QUIET_SECONDS}
        due = [key for key, item in self._waiting.items() if item.due <= now]
        due.sort(key=lambda key: (_RANKS.get(key[0].kind, 1), self._waiting[key].due))
        return [self._pop(key, now) for key in due[: self._spend(len(due), now)]]

    def _spend(self, wanted: int, now: float) -> int:
        """How many of the wanted Events the rate allows; they are counted as posted."""
        passed = 0.0 if self._counted is None else now - self._counted
        self._counted = now
        self._tokens = min(float(BURST), self._tokens + passed * RATE)
        allowed = min(wanted, int(self._tokens))
        self._tokens -= allowed
        return allowed

    def _pop(self, key: _Key, now: float) -> Event:
        item = self._waiting.pop(key)
        self._ranks[_RANKS.get(key[0].kind, 1)] -= 1
        self._posted[key] = now
        what = item.draft
        return Event(
            key[0], what.reason, what.action, what.content.note, what.warning, item.first, item.last, item.count
        )


def _merge(known: _Waiting, newer: EventDraft, at: str) -> None:
    content = known.draft.content.fold(newer.content)
    known.draft = EventDraft(newer.reason, newer.action, content, newer.warning)
    known.last = at
    known.count += 1
