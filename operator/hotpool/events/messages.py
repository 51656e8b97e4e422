"""What an Event says, and how two things that happened become one sentence.

Pure. Each keeps a few names at most, however long a storm is.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

NOTE_BYTES: Final = 1024
"""The longest note that the API server takes."""
_NAMED: Final = 3
"""Of more than this only the number is told."""


@dataclass(frozen=True, slots=True)
class TextMessage:
    """A sentence; of several the last one counts."""

    text: str

    @property
    def note(self) -> str:
        """What the Event says."""
        return truncate(self.text)

    def fold(self, newer: "Content") -> "Content":
        """Both, as one."""
        return newer


@dataclass(frozen=True, slots=True)
class NameList:
    """A number of things, named while they are few."""

    count: int = 0
    names: tuple[str, ...] = ()

    @classmethod
    def of(cls, names: list[str]) -> "NameList":
        """These."""
        return cls(len(names), tuple(sorted(names)[: _NAMED + 1]))

    def __add__(self, other: "NameList") -> "NameList":
        return NameList(self.count + other.count, (*self.names, *other.names)[: _NAMED + 1])

    @property
    def listed(self) -> str:
        """` [a, b]` while they are few, else nothing."""
        return f" [{', '.join(self.names)}]" if self.names and self.count <= _NAMED else ""


@dataclass(frozen=True, slots=True)
class ObjectsMessage:
    """Things to which the same happened: `1 slice [llm-0] changed by others: put right`."""

    noun: str
    objects: NameList
    change: str

    @property
    def note(self) -> str:
        """What the Event says."""
        plural = "" if self.objects.count == 1 else "s"
        return truncate(f"{self.objects.count} {self.noun}{plural}{self.objects.listed} {self.change}")

    def fold(self, newer: "Content") -> "Content":
        """Both, as one."""
        return (
            ObjectsMessage(newer.noun, self.objects + newer.objects, newer.change)
            if isinstance(newer, ObjectsMessage)
            else newer
        )


@dataclass(frozen=True, slots=True)
class MembershipMessage:
    """Members that joined, left (by reason) and changed their state (by the new one); each as often as it happened."""

    joined: NameList = NameList()
    left: NameList = NameList()
    changed: NameList = NameList()
    reasons: Mapping[str, int] = field(default_factory=dict)
    states: Mapping[str, int] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.joined.count or self.left.count or self.changed.count)

    @property
    def note(self) -> str:
        """Such as `12 joined, 3 left (TypeNotReady 2, Offline 1)`."""
        parts = [f"{self.joined.count} joined{self.joined.listed}"] if self.joined.count else []
        if self.left.count:
            parts.append(f"{self.left.count} left ({_counts(self.reasons)}){self.left.listed}")
        if self.changed.count:
            parts.append(f"{self.changed.count} changed ({_counts(self.states)}){self.changed.listed}")
        return truncate(", ".join(parts))

    def fold(self, newer: "Content") -> "Content":
        """Both, as one."""
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
    """The text, cut where it would be too long for a note."""
    raw = text.encode()
    return text if len(raw) <= NOTE_BYTES else raw[: NOTE_BYTES - 3].decode(errors="ignore") + "…"


def _counts(counts: Mapping[str, int]) -> str:
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{what} {count}" for what, count in ranked)
