"""Notes of Events, which fold into one note when an Event repeats.

Pure. Each keeps a few names at most, however often it is folded.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

NOTE_BYTES: Final = 1024
"""Longest note that the API server accepts."""
_MAX_NAMES: Final = 3
"""Names listed in a note; `…` stands for the others."""


@dataclass(frozen=True, slots=True)
class Group:
    """Objects with the same change, such as `2 left (Offline 2) [a, b]` or `1 slice [llm-0] repaired`."""

    change: str
    """Change, or the noun for one object if `rest` has the change."""
    count: int = 0
    names: tuple[str, ...] = ()
    causes: Counter[str] = field(default_factory=Counter)
    rest: str = ""

    @classmethod
    def of(cls, change: str, names: Iterable[str], causes: Iterable[str] = (), rest: str = "") -> "Group":
        """Return the group of these names. `causes`: one for each name."""
        known = sorted(names)
        return cls(change, len(known), tuple(known[: _MAX_NAMES + 1]), Counter(causes), rest)

    def __add__(self, newer: "Group") -> "Group":
        names = tuple(dict.fromkeys((*self.names, *newer.names)))[: _MAX_NAMES + 1]
        return Group(self.change, self.count + newer.count, names, self.causes + newer.causes, newer.rest)

    def __str__(self) -> str:
        plural = "s" if self.rest and self.count != 1 else ""
        ranked = sorted(self.causes.items(), key=lambda item: (-item[1], item[0]))
        causes = f" ({', '.join(f'{key} {count}' for key, count in ranked)})" if ranked else ""
        shown = self.names if len(self.names) <= _MAX_NAMES else (*self.names[:_MAX_NAMES], "…")
        names = f" [{', '.join(shown)}]" if shown else ""
        return f"{self.count} {self.change}{plural}{causes}{names}{self.rest}"


Content = str | tuple[Group, ...]
"""A sentence, or groups, those that occurred last at the end."""


def fold(older: Content, newer: Content) -> Content:
    """Return one content for both. Of two sentences, the last one stays."""
    if isinstance(older, str) or isinstance(newer, str):
        return newer
    groups = {group.change: group for group in older if group.count}
    for group in newer:
        if group.count:
            known = groups.pop(group.change, None)  # to the end: the order of groups is that of their last changes
            groups[group.change] = known + group if known else group
    return tuple(groups.values())


def note(content: Content, *, folded: bool = False) -> str:
    """Return the text of the Event, such as `12 joined [a, b, c, …], 3 left (Offline 3) [d, e, f]`.

    With `folded`, the groups of several Events are in the order of their last changes: `1 left [a], then 1 joined [a]`.
    """
    if isinstance(content, str):
        return truncate(content)
    return truncate((", then " if folded else ", ").join(str(group) for group in content if group.count))


def truncate(text: str) -> str:
    """Return the text, cut to NOTE_BYTES."""
    raw = text.encode()
    return text if len(raw) <= NOTE_BYTES else raw[: NOTE_BYTES - 3].decode(errors="ignore") + "…"
