"""Aggregation of Events: folding, rate and order (requirement C6)."""

from hypothesis import given
from hypothesis import strategies as st

from hotpool.events.aggregator import (
    BURST,
    MAX_TRACKED,
    QUIET_SECONDS,
    RATE,
    Event,
    EventAggregator,
    EventDraft,
    EventObject,
)
from hotpool.events.messages import NOTE_BYTES, Content, Group, fold, note, truncate

POOL = EventObject("NodePool", "zh-en", "u1")
FLEET = EventObject("Lease", "hotpool-operator", "u2")


def node(number: int) -> EventObject:
    return EventObject("NodeCapability", f"edge-{number}", f"u-{number}")


def draft(reason: str = "NotReady", content: Content | None = None) -> EventDraft:
    return EventDraft(reason, "SetCondition", content or reason)


def posted_until(
    aggregator: EventAggregator, end: float, step: float = 0.5, since: float = 0.0
) -> list[tuple[float, Event]]:
    """Return time and Event of everything posted by a caller of `take` each half second."""
    found, now = [], since
    while now <= end:
        found += [(now, event) for event in aggregator.take(now)]
        now += step
    return found


def test_the_first_event_of_an_object_is_posted_at_once() -> None:
    aggregator = EventAggregator()
    assert aggregator.add(POOL, draft(), "t0", 0.0)
    (event,) = aggregator.take(0.0)
    assert (event.regarding, event.reason, event.note, event.count) == (POOL, "NotReady", "NotReady", 1)
    assert (event.first, event.last) == ("t0", "t0")
    assert aggregator.waiting == 0


def test_a_storm_is_one_event_for_an_object_and_a_reason_in_ten_seconds() -> None:
    aggregator, posted = EventAggregator(), []
    for step in range(600):
        now = step / 20
        aggregator.add(POOL, draft("MembersChanged", (Group.of("joined", [f"n{step}"]),)), f"t{step}", now)
        posted += [(now, event) for event in aggregator.take(now)]
    posted += posted_until(aggregator, 60.0, since=30.0)
    assert [round(at) for at, _ in posted] == [0, 10, 20, 30]
    assert [event.note for _, event in posted] == [
        "1 joined [n0]",
        "200 joined [n1, n2, n3, …]",
        "200 joined [n201, n202, n203, …]",
        "199 joined [n401, n402, n403, …]",
    ]
    assert sum(event.count for _, event in posted) == 600
    assert (posted[1][1].first, posted[1][1].last) == ("t1", "t200")


def test_other_reasons_and_objects_do_not_wait_for_each_other() -> None:
    aggregator = EventAggregator()
    aggregator.add(POOL, draft("NotReady"), "t", 0.0)
    assert len(aggregator.take(0.0)) == 1
    aggregator.add(POOL, draft("Ready"), "t", 1.0)
    aggregator.add(POOL, draft("NotReady"), "t", 1.0)
    aggregator.add(node(1), draft("NotReady"), "t", 1.0)
    assert [(event.regarding.name, event.reason) for event in aggregator.take(1.0)] == [
        ("zh-en", "Ready"),
        ("edge-1", "NotReady"),
    ]
    assert [event.reason for event in aggregator.take(QUIET_SECONDS)] == ["NotReady"]


def test_the_rate_is_bounded_and_important_events_are_posted_first() -> None:
    aggregator = EventAggregator()
    for number in range(300):
        aggregator.add(node(number), draft("Suspect"), "t", 0.0)
    aggregator.add(POOL, draft("MassSilence"), "t", 0.0)
    aggregator.add(FLEET, draft("RedisDown"), "t", 0.0)
    posted = posted_until(aggregator, 120.0)
    assert [event.reason for _, event in posted[:3]] == ["RedisDown", "MassSilence", "Suspect"]
    assert len(posted) == 302
    for at in range(60):
        assert sum(1 for when, _ in posted if when <= at) <= BURST + RATE * at


def test_events_above_the_limit_are_dropped_and_do_not_displace_important_ones() -> None:
    aggregator = EventAggregator()
    accepted = [aggregator.add(node(number), draft("Offline"), "t", 0.0) for number in range(MAX_TRACKED + 100)]
    assert accepted.count(False) == 100
    assert aggregator.add(node(0), draft("Offline"), "t", 0.0)
    assert aggregator.add(POOL, draft("MassSilence"), "t", 0.0)
    assert aggregator.waiting == MAX_TRACKED + 1
    aggregator.take(0.0)
    assert aggregator.add(node(MAX_TRACKED), draft("Offline"), "t", 0.0)


@given(
    st.lists(
        st.tuples(st.integers(0, 12), st.integers(0, 40), st.sampled_from(["Live", "Suspect", "Offline"])), max_size=300
    )
)
def test_whatever_happens_the_bounds_hold_and_nothing_is_lost(steps: list[tuple[int, int, str]]) -> None:
    aggregator, now, posted = EventAggregator(), 0.0, list[tuple[float, Event]]()
    for pause, number, reason in steps:
        now += pause / 4
        assert aggregator.add(node(number), draft(reason), "t", now)
        posted += [(now, event) for event in aggregator.take(now)]
    posted += posted_until(aggregator, now + 60, since=now)
    assert sum(event.count for _, event in posted) == len(steps)
    assert aggregator.waiting == 0
    last: dict[tuple[EventObject, str], float] = {}
    for at, event in posted:
        key = (event.regarding, event.reason)
        assert at - last.get(key, -QUIET_SECONDS) >= QUIET_SECONDS
        last[key] = at


def membership(joined: list[str], left: dict[str, str], changed: dict[str, str]) -> Content:
    return (
        Group.of("joined", joined),
        Group.of("left", left, left.values()),
        Group.of("changed", changed, changed.values()),
    )


def test_a_note_names_the_changed_nodes_and_the_reasons() -> None:
    one = membership(["a"], {"b": "Offline"}, {"c": "Suspect"})
    assert note(one) == "1 joined [a], 1 left (Offline 1) [b], 1 changed (Suspect 1) [c]"
    left = {"l1": "Offline", "l2": "TypeNotReady", "l3": "TypeNotReady"}
    many = membership([f"j{number}" for number in range(12)], left, {})
    assert note(many) == "12 joined [j0, j1, j10, …], 3 left (TypeNotReady 2, Offline 1) [l1, l2, l3]"


def test_the_groups_of_folded_events_are_in_the_order_of_their_last_changes() -> None:
    left, joined = membership([], {"a": "Offline"}, {}), membership(["a"], {}, {})
    assert note(fold(left, joined), folded=True) == "1 left (Offline 1) [a], then 1 joined [a]"
    assert note(fold(joined, left), folded=True) == "1 joined [a], then 1 left (Offline 1) [a]"
    flapping = fold(fold(joined, left), joined)
    assert note(flapping, folded=True) == "1 left (Offline 1) [a], then 2 joined [a]"


def test_names_are_few_however_long_the_storm_is() -> None:
    group = Group("joined")
    for number in range(1000):
        group += Group.of("joined", [f"edge-{number}"])
    assert (group.count, len(group.names), str(group)) == (1000, 4, "1000 joined [edge-0, edge-1, edge-2, …]")


def test_a_note_of_objects_has_their_number_and_the_last_sentence_stays() -> None:
    first, second = (Group.of("slice", [name], rest=" changed by another client: repaired") for name in ("p-0", "p-1"))
    assert note((first,)) == "1 slice [p-0] changed by another client: repaired"
    assert note(fold((first,), (second,))) == "2 slices [p-0, p-1] changed by another client: repaired"
    assert fold("old", "new") == "new"


@given(st.text(max_size=2000))
def test_a_note_is_never_too_long(text: str) -> None:
    assert len(truncate(text).encode()) <= NOTE_BYTES
    assert truncate("short") == "short"
