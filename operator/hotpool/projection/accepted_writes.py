"""Last accepted write of each name, which lets the drift check distinguish foreign changes from writes in progress.

Must not do I/O. One instance for pools, one for nodes.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

MAX_COUNTER_JUMP = 10**12
"""Must equal the constant in lua/common.lua. Two valid versions never differ by more."""


@dataclass(frozen=True, slots=True)
class WriteStamp:
    """Identity of a write: the writer's term, the version within it, the digest of the document."""

    term: int
    version: int
    digest: str


class AcceptedWrites:
    """Stamps of accepted writes, names with a write in progress, and the version counter (one for all names)."""

    def __init__(self) -> None:
        self._version = 0
        self._stamps: dict[str, WriteStamp | None] = {}
        """None: the outcome is unknown or refused, so the stored state counts as different."""
        self._latest_versions: dict[str, int] = {}
        self._in_progress: list[str] = []
        self._trackers: list[set[str]] = []

    def observe_version(self, version: int) -> None:
        """Continue above a version read from Redis. An implausibly large one is ignored."""
        if version - self._version <= MAX_COUNTER_JUMP:
            self._version = max(self._version, version)

    @contextmanager
    def writing(self, name: str) -> Iterator[int]:
        """Yield the version of a write. Its outcome is unknown unless record_accepted or record_dropped follows."""
        self._version += 1
        self._latest_versions[name] = self._version
        self._stamps[name] = None
        self._in_progress.append(name)
        for names in self._trackers:
            names.add(name)
        try:
            yield self._version
        finally:
            self._in_progress.remove(name)

    def record_accepted(self, name: str, stamp: WriteStamp) -> None:
        """Record an accepted write. Of two overlapping writes the later version wins."""
        former = self._stamps.get(name)
        if former is None or (former.term, former.version) < (stamp.term, stamp.version):
            self._stamps[name] = stamp

    def record_existing(self, name: str, stamp: WriteStamp) -> None:
        """Record the write of another process, if this one has not written the name yet."""
        self._stamps.setdefault(name, stamp)

    def record_refused(self, name: str, stamp: WriteStamp) -> None:
        """Record that Redis refused a write and still holds the previous one, `stamp`."""
        if self._stamps.get(name) is None and name not in self._in_progress:
            self._stamps[name] = stamp

    def mark_unknown(self, name: str) -> None:
        """Record that Redis does not hold the last write of a name. The next write must be a whole document."""
        self._stamps[name] = None

    def last_accepted(self, name: str) -> WriteStamp | None:
        """Return the last write of a name that Redis accepted, or None if it is unknown."""
        return self._stamps.get(name)

    def is_latest(self, name: str, version: int) -> bool:
        """Return True if no later write of the name has begun."""
        return self._latest_versions.get(name) == version

    def record_dropped(self, name: str) -> None:
        """Record that Redis deleted the name."""
        self._stamps.pop(name, None)
        if self._in_progress.count(name) <= 1:  # the deletion itself
            self._latest_versions.pop(name, None)

    @contextmanager
    def track_names(self) -> Iterator[set[str]]:
        """Yield a set of the names that are written during the block: a read of such a name may return either state."""
        names = set(self._in_progress)
        self._trackers.append(names)
        try:
            yield names
        finally:
            self._trackers = [other for other in self._trackers if other is not names]

    def matches(self, name: str, stored: WriteStamp, digest: str) -> bool:
        """Return True if the stored write is exactly ours, or another process's with the same digest."""
        if stored.digest != digest:
            return False
        return name not in self._stamps or self._stamps[name] == stored
