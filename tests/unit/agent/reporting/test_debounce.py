"""When a report is due (requirement B6), on a simulated clock (requirement A9)."""

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from hotpool_agent.reporting.debounce import Debouncer
from hotpool_agent.reporting.report_builder import Change

D = 2.0
WIDTH = 6
"""Capabilities of the simulated node, as bits of its state."""


def classify(before: int, now: int) -> Change:
    """As report.classify, for a set of bits; the bit above WIDTH is neutral."""
    mask = (1 << WIDTH) - 1
    if before == now:
        return Change.NONE
    if before & ~now & mask:
        return Change.WITHDRAWAL
    return Change.GAIN if now & ~before & mask else Change.NEUTRAL


@dataclass
class Sim:
    """A node and its reporter; a report takes no time."""

    throttle: Debouncer = field(default_factory=lambda: Debouncer(D))
    sent: int = 0
    state: int = 0
    reports: list[tuple[float, int]] = field(default_factory=list)

    def change(self, state: int, now: float) -> None:
        """The node's state is another one from now on."""
        self.run_to(now)
        self.state = state
        self.throttle.add(classify(self.sent, state), now, str(now))
        self.run_to(now)

    def run_to(self, now: float) -> None:
        """Let time pass, and send what is due."""
        while (due := self.throttle.due()) is not None and due <= now:
            assert self.throttle.take()
            self.sent = self.state
            self.reports.append((due, self.sent))
            self.throttle.add(Change.NONE, due, "")


def test_one_gain_each_1500_ms_for_12_s_makes_4_to_7_reports_none_later_than_d() -> None:
    sim = Sim()
    seen: list[tuple[float, int]] = []
    for index in range(9):
        now = index * 1.5
        sim.change(sim.state | (1 << index), now)
        seen.append((now, 1 << index))
    sim.run_to(100)
    assert 4 <= len(sim.reports) <= 7
    for at, bit in seen:
        assert min(when for when, state in sim.reports if state & bit) - at <= D


def test_a_withdrawal_goes_at_once_with_all_that_is_pending() -> None:
    sim = Sim(sent=0b1, state=0b1)
    sim.change(0b11, 10.0)
    sim.change(0b10, 10.5)
    assert sim.reports == [(10.5, 0b10)]


def test_a_gain_that_is_over_before_its_window_ends_is_not_sent() -> None:
    sim = Sim()
    sim.change(1, 0.0)
    sim.change(0, 1.0)
    sim.run_to(100)
    assert sim.reports == []


def test_the_window_opens_with_the_first_unsent_gain_and_does_not_move() -> None:
    sim = Sim()
    for index in range(4):
        sim.change(sim.state | 1 << index, index * 0.6)
    sim.run_to(100)
    assert sim.reports == [(2.0, 0b1111)]


def test_a_neutral_change_waits_like_a_gain() -> None:
    sim = Sim()
    sim.change(1 << WIDTH, 1.0)
    sim.run_to(100)
    assert sim.reports == [(3.0, 1 << WIDTH)]


def test_a_gain_that_joins_a_neutral_change_shares_its_window() -> None:
    sim = Sim()
    sim.change(1 << WIDTH, 1.0)
    sim.change(1 << WIDTH | 1, 2.0)
    assert sim.throttle.due() == 3.0


def test_the_stamp_is_that_of_the_strongest_change() -> None:
    throttle = Debouncer(D)
    throttle.add(Change.NEUTRAL, 0, "neutral")
    throttle.add(Change.GAIN, 1, "gain")
    throttle.add(Change.GAIN, 1.5, "more")
    assert (pending := throttle.take()) is not None
    assert pending.stamp == "gain"


def test_hastening_makes_what_is_pending_due_now() -> None:
    throttle = Debouncer(D)
    throttle.expedite(5)
    assert throttle.due() is None
    throttle.add(Change.NEUTRAL, 5, "")
    throttle.expedite(5.5)
    assert throttle.due() == 5.5


schedules = st.lists(st.tuples(st.floats(0, 3), st.integers(0, (1 << (WIDTH + 1)) - 1)), max_size=40)


@given(schedules)
def test_any_schedule_no_withdrawal_waits_no_gain_is_late_and_the_last_state_is_sent(
    schedule: list[tuple[float, int]],
) -> None:
    sim, now = Sim(), 0.0
    held: dict[int, float] = {}
    """Since when each bit holds without having been sent."""
    for pause, state in schedule:
        now += pause
        sim.change(state, now)
        for bit in range(WIDTH):
            if state >> bit & 1 and not sim.sent >> bit & 1:
                held.setdefault(bit, now)
                assert now - held[bit] <= D
            else:
                held.pop(bit, None)
        assert classify(sim.sent, state) is not Change.WITHDRAWAL
    sim.run_to(now + D)
    assert sim.sent == sim.state
    assert sim.throttle.due() is None
