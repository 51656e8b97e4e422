"""What is told as Events, and how much of it (requirement C6)."""

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
from hotpool.events.messages import (
    NOTE_BYTES,
    Content,
    MembershipMessage,
    NameList,
    ObjectsMessage,
    TextMessage,
    truncate,
)

POOL = EventObject("NodePool", "zh-en", "u1")
FLEET = EventObject("Lease", "hotpool-operator", "u2")


def node(number: int) -> EventObject:
    return EventObject("NodeCapability", f"edge-{number}", f"u-{number}")


def happening(reason: str = "NotReady", content: Content | None = None) -> EventDraft:
    return EventDraft(reason, "SetCondition", content or TextMessage(reason))


def told(story: EventAggregator, until: float, step: float = 0.5, since: float = 0.0) -> list[tuple[float, Event]]:
    """What is posted by somebody who looks each half second."""
    found, now = [], since
    while now <= until:
        found += [(now, event) for event in story.take(now)]
        now += step
    return found


def test_the_first_of_a_quiet_object_goes_at_once() -> None:
    story = EventAggregator()
    assert story.add(POOL, happening(), "t0", 0.0)
    (event,) = story.take(0.0)
    assert (event.regarding, event.reason, event.note, event.count) == (POOL, "NotReady", "NotReady", 1)
    assert (event.first, event.last) == ("t0", "t0")
    assert story.waiting == 0


def test_a_storm_is_one_event_for_an_object_and_a_reason_in_ten_seconds() -> None:
    story, posted = EventAggregator(), []
    for turn in range(600):
        now = turn / 20
        story.add(POOL, happening("MembersChanged", MembershipMessage(NameList.of([f"n{turn}"]))), f"t{turn}", now)
        posted += [(now, event) for event in story.take(now)]
    posted += told(story, 60.0, since=30.0)
    assert [round(at) for at, _ in posted] == [0, 10, 20, 30]
    assert [event.note for _, event in posted] == ["1 joined [n0]", "200 joined", "200 joined", "199 joined"]
    assert sum(event.count for _, event in posted) == 600
    assert (posted[1][1].first, posted[1][1].last) == ("t1", "t200")


def test_other_reasons_and_objects_do_not_wait_for_each_other() -> None:
    story = EventAggregator()
    story.add(POOL, happening("NotReady"), "t", 0.0)
    assert len(story.take(0.0)) == 1
    story.add(POOL, happening("Ready"), "t", 1.0)
    story.add(POOL, happening("NotReady"), "t", 1.0)
    story.add(node(1), happening("NotReady"), "t", 1.0)
    assert [(event.regarding.name, event.reason) for event in story.take(1.0)] == [
        ("zh-en", "Ready"),
        ("edge-1", "NotReady"),
    ]
    assert [event.reason for event in story.take(QUIET_SECONDS)] == ["NotReady"]


def test_the_rate_is_bounded_and_the_important_goes_first() -> None:
    story = EventAggregator()
    for number in range(300):
        story.add(node(number), happening("Suspect"), "t", 0.0)
    story.add(POOL, happening("MassSilence"), "t", 0.0)
    story.add(FLEET, happening("RedisDown"), "t", 0.0)
    posted = told(story, 120.0)
    assert [event.reason for _, event in posted[:3]] == ["RedisDown", "MassSilence", "Suspect"]
    assert len(posted) == 302
    for at in range(60):
        assert sum(1 for when, _ in posted if when <= at) <= BURST + RATE * at


def test_what_finds_no_room_is_not_told_and_takes_no_room_of_the_important() -> None:
    story = EventAggregator()
    told_of = [story.add(node(number), happening("Offline"), "t", 0.0) for number in range(MAX_TRACKED + 100)]
    assert told_of.count(False) == 100
    assert story.add(node(0), happening("Offline"), "t", 0.0)
    assert story.add(POOL, happening("MassSilence"), "t", 0.0)
    assert story.waiting == MAX_TRACKED + 1
    story.take(0.0)
    assert story.add(node(MAX_TRACKED), happening("Offline"), "t", 0.0)


@given(
    st.lists(
        st.tuples(st.integers(0, 12), st.integers(0, 40), st.sampled_from(["Live", "Suspect", "Offline"])), max_size=300
    )
)
def test_whatever_happens_the_bounds_hold_and_nothing_is_lost(steps: list[tuple[int, int, str]]) -> None:
    story, now, posted = EventAggregator(), 0.0, list[tuple[float, Event]]()
    for pause, number, reason in steps:
        now += pause / 4
        assert story.add(node(number), happening(reason), "t", now)
        posted += [(now, event) for event in story.take(now)]
    posted += told(story, now + 60, since=now)
    assert sum(event.count for _, event in posted) == len(steps)
    assert story.waiting == 0
    last: dict[tuple[EventObject, str], float] = {}
    for at, event in posted:
        key = (event.regarding, event.reason)
        assert at - last.get(key, -QUIET_SECONDS) >= QUIET_SECONDS
        last[key] = at


def test_a_note_says_who_moved_and_why() -> None:
    one = MembershipMessage(NameList.of(["a"]), NameList.of(["b"]), NameList.of(["c"]), {"Offline": 1}, {"Suspect": 1})
    assert one.note == "1 joined [a], 1 left (Offline 1) [b], 1 changed (Suspect 1) [c]"
    many = MembershipMessage(
        NameList.of([f"j{number}" for number in range(12)]),
        NameList.of(["l1", "l2", "l3"]),
        reasons={"Offline": 1, "TypeNotReady": 2},
    )
    assert many.note == "12 joined, 3 left (TypeNotReady 2, Offline 1) [l1, l2, l3]"
    assert one.fold(many).note == "13 joined, 4 left (Offline 2, TypeNotReady 2), 1 changed (Suspect 1) [c]"
    assert not MembershipMessage()


def test_names_are_few_however_long_the_storm_is() -> None:
    group = NameList()
    for number in range(1000):
        group += NameList.of([f"edge-{number}"])
    assert (group.count, len(group.names), group.listed) == (1000, 4, "")
    things = ObjectsMessage("slice", NameList.of(["p-0"]), "changed by others: put right")
    assert things.note == "1 slice [p-0] changed by others: put right"
    assert things.fold(ObjectsMessage("slice", NameList.of(["p-1"]), things.change)).note.startswith(
        "2 slices [p-0, p-1] changed"
    )
    assert TextMessage("old").fold(TextMessage("new")).note == "new"


@given(st.text(max_size=2000))
def test_a_note_is_never_too_long(text: str) -> None:
    assert len(truncate(text).encode()) <= NOTE_BYTES
    assert truncate("short") == "short"
