"""Work queue: due times, capacity, and at most one worker per key."""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from hotpool.controllers.workqueue import WorkQueue
from hotpool.core.model import Key, Kind

A, B, C = (Key(Kind.POOL, name) for name in "abc")
MANY = 100
CAPACITY = 2


def test_keys_are_taken_when_due_earliest_first() -> None:
    queue = WorkQueue(MANY)
    assert queue.add(A, 5)
    assert queue.add(B, 3)
    assert queue.take(2.9) == []
    assert queue.next_due() == 3
    assert queue.take(5) == [(B, 3), (A, 5)]
    assert queue.next_due() is None


def test_of_two_times_the_earlier_counts() -> None:
    queue = WorkQueue(MANY)
    queue.add(A, 5)
    assert not queue.add(A, 7)
    assert queue.add(A, 1)
    assert queue.take(1) == [(A, 1)]
    queue.done(A)
    assert queue.take(10) == []


def test_a_key_in_flight_is_due_again_when_it_is_done() -> None:
    queue = WorkQueue(MANY)
    queue.add(A, 1)
    queue.take(1)
    assert queue.add(A, 2)
    assert queue.take(3) == []
    assert queue.next_due() is None
    queue.done(A)
    assert queue.next_due() == 2
    assert queue.take(3) == [(A, 2)]


def test_no_more_keys_than_the_capacity_are_in_flight() -> None:
    queue = WorkQueue(2)
    for key in (A, B, C):
        queue.add(key, 1)
    assert len(queue.take(1)) == 2
    assert queue.next_due() is None
    assert queue.take(1) == []
    queue.done(A)
    assert len(queue.take(1)) == 1


def test_outdated_entries_do_not_accumulate() -> None:
    queue = WorkQueue(MANY)
    for number in range(10_000):
        queue.add(A, 10_000 - number)
    assert len(queue._heap) < 200  # noqa: SLF001 - the private heap must not grow.
    assert queue.take(1) == [(A, 1)]


class Queue(RuleBasedStateMachine):
    """Model of the queue: no key is lost, none is in flight twice, none before its due time."""

    keys = st.sampled_from([A, B, C])

    def __init__(self) -> None:
        super().__init__()
        self.queue = WorkQueue(CAPACITY)
        self.now = 0.0
        self.due: dict[Key, float] = {}
        self.in_flight: set[Key] = set()

    @rule(keys=st.lists(keys, max_size=3), ahead=st.sampled_from([0.0, 1.0, 5.0]))
    def add(self, keys: list[Key], ahead: float) -> None:
        at = self.now + ahead
        for key in keys:
            self.queue.add(key, at)
        self.due.update({key: min(at, self.due.get(key, at)) for key in keys})

    @rule(seconds=st.sampled_from([0.0, 1.0, 5.0]))
    def take(self, seconds: float) -> None:
        self.now += seconds
        ready = {key: at for key, at in self.due.items() if at <= self.now and key not in self.in_flight}
        taken = dict(self.queue.take(self.now))
        assert len(taken) == min(CAPACITY - len(self.in_flight), len(ready))
        assert taken.items() <= ready.items()
        self.in_flight |= taken.keys()
        self.due = {key: at for key, at in self.due.items() if key not in taken}

    @rule(key=keys)
    def done(self, key: Key) -> None:
        self.queue.done(key)
        self.in_flight.discard(key)

    @invariant()
    def next_due_is_the_earliest_waiting_key(self) -> None:
        waiting = [at for key, at in self.due.items() if key not in self.in_flight]
        has_capacity = len(self.in_flight) < CAPACITY
        assert self.queue.next_due() == (min(waiting, default=None) if has_capacity else None)


TestQueue = Queue.TestCase
