"""Order of the picks of one client that wait (E10)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotpool.lookup import Counts, NoMember, Reason
from hotpool.projection.lookup.wait_protocol import block_ms, parse_lines
from hotpool.projection.lookup.wait_queue import Waiter, WaitQueue

NONE = Counts(0, 0, 0, 0, 0)


def no_member(reason: Reason, pool: str = "a", retry_after: float | None = None, *others: NoMember) -> NoMember:
    answer = NoMember(pool, reason, NONE, 0.0, True, retry_after)
    return NoMember(pool, reason, NONE, 0.0, True, retry_after, (answer, *others)) if others else answer


class Wakes:
    """A queue, and its waiters in the order in which they were woken."""

    def __init__(self) -> None:
        self.queue = WaitQueue()
        self.woken: list[str] = []

    def join(self, name: str, group: str = "a", *, reading: bool = False) -> Waiter:
        return self.queue.join(group, [group], lambda: self.woken.append(name), reading=reading)


def test_the_oldest_waiter_of_all_groups_has_the_turn_and_only_one() -> None:
    wakes = Wakes()
    first, second, third = wakes.join("1", "b"), wakes.join("2", "a"), wakes.join("3", "b")
    assert wakes.woken == []
    wakes.queue.mark_all()
    assert [wakes.queue.has_turn(one) for one in (first, second, third)] == [True, False, False]
    wakes.queue.leave(first)  # served: others of its group may be, too, but the second one is older
    assert wakes.queue.has_turn(second)
    wakes.queue.fail(second, no_member(Reason.EMPTY), 0)
    assert wakes.queue.has_turn(third)
    wakes.queue.fail(third, no_member(Reason.EMPTY, "b"), 0)
    assert not any(map(wakes.queue.has_turn, (second, third)))


def test_a_failed_pick_ends_the_turns_of_its_group_until_the_next_mark() -> None:
    wakes = Wakes()
    first, second = wakes.join("1"), wakes.join("2")
    wakes.queue.mark_all()
    wakes.queue.fail(first, no_member(Reason.EMPTY), 0)
    assert (wakes.queue.has_turn(first), wakes.queue.has_turn(second)) == (False, False)
    wakes.queue.mark([{"pool": "a"}])
    assert wakes.queue.has_turn(first)


def test_a_mark_during_a_pick_that_fails_causes_another_pick() -> None:
    wakes = Wakes()
    first = wakes.join("1")
    wakes.queue.mark_all()
    wakes.queue.mark([{"pool": "a"}])
    wakes.queue.fail(first, no_member(Reason.EMPTY), 0)
    assert wakes.queue.has_turn(first)
    wakes.queue.fail(first, no_member(Reason.EMPTY), 0)
    assert not wakes.queue.has_turn(first)


def test_a_waiter_that_leaves_with_the_turn_passes_it_on() -> None:
    wakes = Wakes()
    first, second = wakes.join("1"), wakes.join("2")
    wakes.queue.mark_all()
    wakes.queue.leave(first)
    assert wakes.queue.has_turn(second)
    wakes.queue.leave(second)
    assert wakes.queue.groups == {}


def test_a_new_group_tries_again_at_once_while_lines_are_read() -> None:
    wakes = Wakes()
    assert wakes.queue.has_turn(wakes.join("1", "a", reading=True))
    assert not wakes.queue.has_turn(wakes.join("2", "b"))


def test_the_first_of_a_group_tries_again_at_its_time_also_after_the_former_first_left() -> None:
    wakes = Wakes()
    first, second = wakes.join("1"), wakes.join("2")
    wakes.queue.mark_all()
    wakes.queue.fail(first, no_member(Reason.FULL, "a", 1.5), 10.0)
    assert wakes.queue.time_to_look(first, 99) == 11.5
    assert wakes.queue.time_to_look(second, 99) == 99
    wakes.woken.clear()
    wakes.queue.leave(first)
    assert wakes.woken == ["2"]
    assert wakes.queue.time_to_look(second, 99) == 11.5
    wakes.queue.advance(second, 11.4)
    assert not wakes.queue.has_turn(second)
    wakes.queue.advance(second, 11.5)
    assert wakes.queue.has_turn(second)


@pytest.mark.parametrize(
    ("reason", "line", "helps"),
    [
        (Reason.FULL, {"slot": "edge-1"}, True),
        (Reason.FULL, {"node": "edge-1"}, True),
        (Reason.FULL, {"pool": "a", "key": "-"}, True),
        (Reason.FULL, {"pool": "b", "key": "-"}, False),
        (Reason.EMPTY, {"slot": "edge-1"}, False),
        (Reason.EMPTY, {"node": "edge-1"}, False),
        (Reason.EMPTY, {"pool": "new", "key": "a"}, True),
        (Reason.NO_ENDPOINT, {"node": "edge-1"}, True),
        (Reason.STALE, {"stamp": "-"}, True),
        (Reason.EMPTY, {"stamp": "-"}, False),
        (Reason.FULL, {"waiting": "-"}, False),
        (Reason.FULL, {"later": "-"}, False),
    ],
)
def test_a_line_marks_the_groups_that_it_may_help(reason: Reason, line: dict[str, str], *, helps: bool) -> None:
    for answer in (no_member(reason), no_member(Reason.POOL_UNKNOWN, "c", None, no_member(reason))):
        wakes = Wakes()
        first = wakes.join("1")
        wakes.queue.mark_all()
        wakes.queue.fail(first, answer, 0)
        wakes.queue.mark([line])
        assert wakes.queue.has_turn(first) is helps
    wakes.queue.mark_all()
    wakes.queue.fail(first, None, 0)  # Redis cannot be reached
    wakes.queue.mark([line])
    assert wakes.queue.has_turn(first)


def test_waiters_are_counted_by_the_pool_that_they_ask_for_first() -> None:
    wakes = Wakes()
    first = wakes.join("1")
    wakes.join("2")
    wakes.join("3", "speech/zh-en")
    wakes.queue.mark_all()
    wakes.queue.fail(first, no_member(Reason.FULL, "found"), 0)
    assert wakes.queue.counts() == {"found": 2, "speech/zh-en": 1}


@given(st.lists(st.tuples(st.sampled_from(["join", "leave", "mark", "fail", "all"]), st.integers(0, 5)), max_size=60))
def test_whoever_may_succeed_is_never_forgotten(actions: list[tuple[str, int]]) -> None:
    """After each step the oldest waiter of the marked groups has the turn, unless another one still picks."""
    wakes, waiters, turns = Wakes(), list[Waiter](), set[Waiter]()
    for action, number in actions:
        holder = next((one for one in waiters if wakes.queue.has_turn(one)), None)
        if action == "join":
            waiters.append(wakes.join(str(len(waiters)), "abc"[number % 3], reading=bool(number % 2)))
        elif action == "leave" and waiters:
            gone = waiters.pop(number % len(waiters))
            wakes.queue.leave(gone)
        elif action == "fail" and holder:
            wakes.queue.fail(holder, no_member(Reason.EMPTY, "abc"[number % 3]), 0)
        elif action == "mark":
            wakes.queue.mark([{"pool": "abc"[number % 3]}])
        elif action == "all":
            wakes.queue.mark_all()
        turns = {one for one in waiters if wakes.queue.has_turn(one)}
        ready = [one for one in waiters if one.group.dirty]
        assert len(turns) == bool(ready)
        if turns != {holder} and turns:
            assert turns == {min(ready, key=lambda one: one.number)}


@pytest.mark.parametrize(
    "reply",
    [
        [["key", [("1-0", {"slot": "a"}), ("1-1", {"pool": "b", "key": "-"})]]],
        [[b"key", [(b"1-0", {b"slot": b"a"}), (b"1-1", {b"pool": b"b", b"key": b"-"})]]],
        {b"key": [[(b"1-0", {b"slot": b"a"}), (b"1-1", {b"pool": b"b", b"key": b"-"})]]},
        [[b"key", [[b"1-0", [b"slot", b"a"]], [b"1-1", [b"pool", b"b", b"key", b"-"]]]]],
    ],
)
def test_lines_are_read_from_replies_of_either_protocol(reply: Any) -> None:
    assert parse_lines(reply) == [("1-0", {"slot": "a"}), ("1-1", {"pool": "b", "key": "-"})]


def test_no_reply_has_no_lines() -> None:
    replies: list[Any] = [None, [], {}]
    assert [parse_lines(reply) for reply in replies] == [[], [], []]


def test_a_read_waits_no_longer_than_the_connection_allows() -> None:
    settings: list[dict[str, Any]] = [{}, {"socket_timeout": None}, {"socket_timeout": 5}, {"socket_timeout": 0.4}]
    assert [block_ms(one) for one in settings] == [1000, 1000, 1000, 200]
