"""Order of the picks of one client that wait (requirement E10): the oldest one tries again first.

Pure: must not do I/O or read a clock. Times are seconds of any monotonic clock. Waiters with the same request are one
group: if one of them finds no node, the others would not either. One waiter at a time has the turn, which is the right
to pick. Whatever ends its turn passes it on, so no wake-up is lost with a waiter that gives up.
"""

from collections.abc import Callable, Collection, Hashable, Mapping
from itertools import count
from typing import Final

from hotpool.projection.lookup.results import NoMember, Reason

_HELPED_BY_SLOTS: Final = frozenset({Reason.FULL})
_HELPED_BY_NODES: Final = frozenset({Reason.FULL, Reason.NO_ENDPOINT})


class Waiter:
    """One waiting pick. `wake`: called when it may act: it has the turn, or another time to look at."""

    __slots__ = ("group", "marks", "number", "wake")

    def __init__(self, number: int, group: "Group", wake: Callable[[], None]) -> None:
        self.number = number
        self.group = group
        self.wake = wake
        self.marks = 0
        """Number of marks of the group when its turn began."""


class Group:
    """Waiters with the same request, oldest first."""

    def __init__(self, key: Hashable, names: Collection[str]) -> None:
        self.key = key
        self.names = frozenset(names)
        """Names of pools, or index fields, as asked for."""
        self.waiters: dict[Waiter, None] = {}
        self.marks = 0
        self.dirty = False
        """True if a pick may succeed now."""
        self.answer: NoMember | None = None
        """Result of the last pick; None for none, and while Redis cannot be reached."""
        self.answered = float("-inf")
        self.due: float | None = None
        """Time at which a pick may succeed without a line."""

    @property
    def first(self) -> Waiter:
        """The oldest waiter."""
        return next(iter(self.waiters))

    def mark(self) -> None:
        """Note that a pick may succeed now."""
        self.dirty = True
        self.marks += 1

    def is_helped_by(self, line: Mapping[str, str]) -> bool:
        """Return True if what this line tells may make a pick of the group succeed."""
        if self.answer is None:
            return True
        answers = self.answer.candidates or (self.answer,)
        if "pool" in line:
            pools = self.names | {answer.pool for answer in answers}
            return line["pool"] in pools or line.get("key") in pools
        reasons = {answer.reason for answer in answers}
        if "slot" in line:
            return bool(reasons & _HELPED_BY_SLOTS)
        if "node" in line:
            return bool(reasons & _HELPED_BY_NODES)
        return "stamp" in line and Reason.STALE in reasons


class WaitQueue:
    """The waiting picks of one client."""

    def __init__(self) -> None:
        self.groups: dict[Hashable, Group] = {}
        self._numbers = count()
        self._turn: Waiter | None = None

    def join(self, key: Hashable, names: Collection[str], wake: Callable[[], None], *, reading: bool) -> Waiter:
        """Append a waiter. A new group tries again at once if lines are read, else at the next mark.

        The pick before it joined may have missed a line that was read meanwhile.
        """
        group = self.groups.get(key)
        if group is None:
            group = self.groups[key] = Group(key, names)
            group.dirty = reading
        waiter = Waiter(next(self._numbers), group, wake)
        group.waiters[waiter] = None
        self._grant()
        return waiter

    def leave(self, waiter: Waiter) -> None:
        """Remove a waiter, served or not. Its turn goes to the oldest one of any group that may succeed."""
        group = waiter.group
        was_first = group.first is waiter
        del group.waiters[waiter]
        if not group.waiters:
            del self.groups[group.key]
        elif was_first:
            group.first.wake()  # it has to look at the due time of the group from now on
        if self._turn is waiter:
            self._turn = None
        self._grant()

    def has_turn(self, waiter: Waiter) -> bool:
        """Return True if the waiter is to pick now."""
        return self._turn is waiter

    def fail(self, waiter: Waiter, answer: NoMember | None, now: float) -> None:
        """End the turn of a waiter without a node. `answer`: None if Redis cannot be reached."""
        group = waiter.group
        group.answer, group.answered = answer, now
        group.dirty = group.marks != waiter.marks
        retry_after = answer.retry_after if answer is not None else None
        group.due = None if retry_after is None else now + retry_after
        self._turn = None
        self._grant()

    def mark(self, lines: Collection[Mapping[str, str]]) -> None:
        """Note lines that tell what may have made room."""
        for group in self.groups.values():
            if any(map(group.is_helped_by, lines)):
                group.mark()
        self._grant()

    def mark_all(self) -> None:
        """Let the oldest waiter of each group try again."""
        for group in self.groups.values():
            group.mark()
        self._grant()

    def advance(self, waiter: Waiter, now: float) -> None:
        """Let a group try again whose time has come, if the waiter is its oldest."""
        group = waiter.group
        if group.first is waiter and group.due is not None and group.due <= now:
            group.due = None
            group.mark()
            self._grant()

    def time_to_look(self, waiter: Waiter, deadline: float) -> float:
        """Return the time until which the waiter may sleep if nothing wakes it."""
        due = waiter.group.due
        return deadline if due is None or waiter.group.first is not waiter else min(due, deadline)

    def counts(self) -> dict[str, int]:
        """Return the number of waiters by the first pool that they asked for."""
        found: dict[str, int] = {}
        for group in self.groups.values():
            pool = group.answer.pool if group.answer is not None else min(group.names)
            found[pool] = found.get(pool, 0) + len(group.waiters)
        return found

    def wake_all(self) -> None:
        """Wake every waiter, such as when the client is closed."""
        for group in self.groups.values():
            for waiter in group.waiters:
                waiter.wake()

    def _grant(self) -> None:
        """Give a free turn to the oldest waiter of the groups that may succeed."""
        if self._turn is None:
            candidates = [group.first for group in self.groups.values() if group.dirty]
            if candidates:
                self._turn = min(candidates, key=lambda waiter: waiter.number)
                self._turn.marks = self._turn.group.marks
                self._turn.wake()
