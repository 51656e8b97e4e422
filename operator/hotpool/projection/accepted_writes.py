"""What this process wrote of each name, so that the audit can tell a foreign change from a write under way.

It must not do I/O. One ledger for pools, one for nodes.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_COUNTER_JUMP = 10**12
"""As in lua/common.lua: no two of our versions lie so far apart."""


@dataclass(frozen=True, slots=True)
class WriteStamp:
    """Which write it was: the writer's term, the version within it, the digest of the image."""

    term: int
    version: int
    digest: str


class AcceptedWrites:
    """Marks of what was written, names being written, and the version counter (one for all names of a kind)."""

    def __init__(self) -> None:
        self._version = 0
        self._marks: dict[
            str, WriteStamp | None
        ] = {}  # None: outcome unknown or refused, so what is there must differ.
        self._begun: dict[str, int] = {}
        self._busy: list[str] = []
        self._recordings: list[set[str]] = []

    def learn(self, version: int) -> None:
        """Note a version seen in Redis: the next ones are higher. One that no counter came to is somebody's garbage."""
        if version - self._version <= MAX_COUNTER_JUMP:
            self._version = max(self._version, version)

    @contextmanager
    def writing(self, name: str) -> Iterator[int]:
        """Yield the version of a write of this name. Unless `wrote` or `dropped` follows, its outcome is unknown."""
        self._version += 1
        self._begun[name] = self._version
        self._marks[name] = None
        self._busy.append(name)
        for names in self._recordings:
            names.add(name)
        try:
            yield self._version
        finally:
            self._busy.remove(name)

    def wrote(self, name: str, mark: WriteStamp) -> None:
        """Note that Redis accepted a write. Of two that overlapped the later version stands."""
        former = self._marks.get(name)
        if former is None or (former.term, former.version) < (mark.term, mark.version):
            self._marks[name] = mark

    def found(self, name: str, mark: WriteStamp) -> None:
        """Note what another process wrote of a name of which this one wrote nothing yet."""
        self._marks.setdefault(name, mark)

    def refused(self, name: str, mark: WriteStamp) -> None:
        """Note that Redis did nothing of a write: what it held before, `mark`, stands."""
        if self._marks.get(name) is None and name not in self._busy:
            self._marks[name] = mark

    def doubt(self, name: str) -> None:
        """Note that Redis does not hold of a name what this process wrote: only a whole write helps."""
        self._marks[name] = None

    def last_accepted(self, name: str) -> WriteStamp | None:
        """Return the write that Redis holds of a name, as far as we know; None where we do not."""
        return self._marks.get(name)

    def is_last(self, name: str, version: int) -> bool:
        """Tell whether no later write of the name has begun."""
        return self._begun.get(name) == version

    def dropped(self, name: str) -> None:
        """Note that Redis dropped the name."""
        self._marks.pop(name, None)
        if self._busy.count(name) <= 1:  # the drop itself
            self._begun.pop(name, None)

    @contextmanager
    def recording(self) -> Iterator[set[str]]:
        """Yield a set that collects the names written meanwhile: what is read of these in this time proves nothing."""
        names = set(self._busy)
        self._recordings.append(names)
        try:
            yield names
        finally:
            self._recordings = [other for other in self._recordings if other is not names]

    def accepts(self, name: str, found: WriteStamp, digest: str) -> bool:
        """Tell whether what Redis says of a name is right: our exact write, or another's with the same digest."""
        if found.digest != digest:
            return False
        return name not in self._marks or self._marks[name] == found
