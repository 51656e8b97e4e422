"""Notes of Events, which fold into one note when an Event repeats.

Pure. Each keeps a few names at most, however often it is folded.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

NOTE_BYTES: Final = 1024
"""Longest note that the API server accepts."""
_MAX_NAMES: Final = 3
"""Names listed in a note; a longer list is replaced by its count."""


@dataclass(frozen=True, slots=True)
class TextMessage:
    """A sentence. Folding keeps the last one."""

    text: str

    @property
    def note(self) -> str:
        """Text of the Event."""
        return truncate(self.text)

    def fold(self, newer: "Content") -> "Content":
        """Return one message for both."""
        return newer


@dataclass(frozen=True, slots=True)
class NameList:
    """Count of names, and the names while they are few."""

    count: int = 0
    names: tuple[str, ...] = ()

    @classmethod
    def of(cls, names: list[str]) -> "NameList":
        """Return the list of these names."""
        return cls(len(names), tuple(sorted(names)[: _MAX_NAMES + 1]))

    def __add__(self, other: "NameList") -> "NameList":
        return NameList(self.count + other.count, (*self.names, *other.names)[: _MAX_NAMES + 1])

    @property
    def listed(self) -> str:
        """` [a, b]` while the names are few, else an empty string."""
        return f" [{', '.join(self.names)}]" if self.names and self.count <= _MAX_NAMES else ""


@dataclass(frozen=True, slots=True)
class ObjectsMessage:
    """Objects with the same change: `1 slice [llm-0] changed by another client: repaired`."""

    noun: str
    objects: NameList
    change: str

    @property
    def note(self) -> str:
        """Text of the Event."""
        plural = "" if self.objects.count == 1 else "s"
        return truncate(f"{self.objects.count} {self.noun}{plural}{self.objects.listed} {self.change}")

    def fold(self, newer: "Content") -> "Content":
        """Return one message for both."""
        return (
            ObjectsMessage(newer.noun, self.objects + newer.objects, newer.change)
            if isinstance(newer, ObjectsMessage)
            else newer
        )


@dataclass(frozen=True, slots=True)
class MembershipMessage:
    """Members that joined, left (by reason) or changed their state (by the new one), counted by occurrence."""

    joined: NameList = NameList()
    left: NameList = NameList()
    changed: NameList = NameList()
    reasons: Mapping[str, int] = field(default_factory=dict)
    states: Mapping[str, int] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.joined.count or self.left.count or self.changed.count)

    @property
    def note(self) -> str:
        """Text of the Event, such as `12 joined, 3 left (TypeNotReady 2, Offline 1)`."""
        parts = [f"{self.joined.count} joined{self.joined.listed}"] if self.joined.count else []
        if self.left.count:
            parts.append(f"{self.left.count} left ({_counts(self.reasons)}){self.left.listed}")
        if self.changed.count:
            parts.append(f"{self.changed.count} changed ({_counts(self.states)}){self.changed.listed}")
        return truncate(", ".join(parts))

    def fold(self, newer: "Content") -> "Content":
        """Return one message for both."""
        if not isinstance(newer, MembershipMessage):
            return newer
        return MembershipMessage(
            self.joined + newer.joined,
            self.left + newer.left,
            self.changed + newer.changed,
            Counter(self.reasons) + Counter(newer.reasons),
            Counter(self.states) + Counter(newer.states),
        )


Content = TextMessage | ObjectsMessage | MembershipMessage


def truncate(text: str) -> str:
    """Return the text, cut to NOTE_BYTES."""
    raw = text.encode()
    return text if len(raw) <= NOTE_BYTES else raw[: NOTE_BYTES - 3].decode(errors="ignore") + "…"


def _counts(counts: Mapping[str, int]) -> str:
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{key} {count}" for key, count in ranked)
