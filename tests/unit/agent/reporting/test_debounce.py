"""Due time of reports (requirement B6), on a simulated clock (requirement A9)."""

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from hotpool_agent.reporting.debounce import PendingChange, pending_change
from hotpool_agent.reporting.report_builder import Change

D = 2.0
WIDTH = 6
"""Capabilities of the simulated node, as bits of its state."""


def classify(before: int, now: int) -> Change:
    """Return what `report_builder.classify` returns, for sets of bits; the bit above WIDTH is neutral."""
    mask = (1 << WIDTH) - 1
    if before == now:
        return Change.NONE
    if before & ~now & mask:
        return Change.WITHDRAWAL
    return Change.GAIN if now & ~before & mask else Change.NEUTRAL


@dataclass
class Simulation:
    """A simulated node and its reporter; a report takes no time."""

    pending: PendingChange | None = None
    sent: int = 0
    state: int = 0
    reports: list[tuple[float, int]] = field(default_factory=list)

    def change(self, state: int, now: float) -> None:
        """Set the state of the node."""
        self.run_to(now)
        self.state = state
        self.pending = pending_change(self.pending, classify(self.sent, state), now, str(now), D)
        self.run_to(now)

    def run_to(self, now: float) -> None:
        """Let time pass, and send what is due."""
        if self.pending and self.pending.due <= now:
            self.sent = self.state
            self.reports.append((self.pending.due, self.sent))
            self.pending = None


def test_one_gain_each_1500_ms_for_12_s_makes_4_to_7_reports_none_later_than_d() -> None:
    simulation = Simulation()
    seen: list[tuple[float, int]] = []
    for index in range(9):
        now = index * 1.5
        simulation.change(simulation.state | (1 << index), now)
        seen.append((now, 1 << index))
    simulation.run_to(100)
    assert 4 <= len(simulation.reports) <= 7
    for at, bit in seen:
        assert min(when for when, state in simulation.reports if state & bit) - at <= D


def test_a_withdrawal_is_sent_at_once_with_all_pending_changes() -> None:
    simulation = Simulation(sent=0b1, state=0b1)
    simulation.change(0b11, 10.0)
    simulation.change(0b10, 10.5)
    assert simulation.reports == [(10.5, 0b10)]


def test_a_gain_that_is_over_before_its_window_ends_is_not_sent() -> None:
    simulation = Simulation()
    simulation.change(1, 0.0)
    simulation.change(0, 1.0)
    simulation.run_to(100)
    assert simulation.reports == []


def test_the_window_opens_with_the_first_unsent_gain_and_does_not_move() -> None:
    simulation = Simulation()
    for index in range(4):
        simulation.change(simulation.state | 1 << index, index * 0.6)
    simulation.run_to(100)
    assert simulation.reports == [(2.0, 0b1111)]


def test_a_neutral_change_waits_like_a_gain() -> None:
    simulation = Simulation()
    simulation.change(1 << WIDTH, 1.0)
    simulation.run_to(100)
    assert simulation.reports == [(3.0, 1 << WIDTH)]


def test_a_gain_that_joins_a_neutral_change_shares_its_window() -> None:
    simulation = Simulation()
    simulation.change(1 << WIDTH, 1.0)
    simulation.change(1 << WIDTH | 1, 2.0)
    assert simulation.pending
    assert simulation.pending.due == 3.0


def test_the_stamp_is_that_of_the_strongest_change() -> None:
    pending = pending_change(None, Change.NEUTRAL, 0, "neutral", D)
    pending = pending_change(pending, Change.GAIN, 1, "gain", D)
    pending = pending_change(pending, Change.GAIN, 1.5, "more", D)
    assert pending
    assert pending.stamp == "gain"


schedules = st.lists(st.tuples(st.floats(0, 3), st.integers(0, (1 << (WIDTH + 1)) - 1)), max_size=40)


@given(schedules)
def test_any_schedule_no_withdrawal_waits_no_gain_is_late_and_the_last_state_is_sent(
    schedule: list[tuple[float, int]],
) -> None:
    simulation, now = Simulation(), 0.0
    unsent_since: dict[int, float] = {}
    """Time since which each bit is set without having been sent."""
    for pause, state in schedule:
        now += pause
        simulation.change(state, now)
        for bit in range(WIDTH):
            if state >> bit & 1 and not simulation.sent >> bit & 1:
                unsent_since.setdefault(bit, now)
                assert now - unsent_since[bit] <= D
            else:
                unsent_since.pop(bit, None)
        assert classify(simulation.sent, state) is not Change.WITHDRAWAL
    simulation.run_to(now + D)
    assert simulation.sent == simulation.state
    assert simulation.pending is None
