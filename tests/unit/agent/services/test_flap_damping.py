"""Back-off, flap penalty and flap history of one service (requirement A7)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hotpool.common.backoff import pause_after
from hotpool_agent.services.flap_damping import LIMIT, FlapDamping

HALF_LIFE = 60.0


def flapped(*times: float) -> FlapDamping:
    damping = FlapDamping(HALF_LIFE)
    for now in times:
        damping = damping.flapped(now)
    return damping


def test_pauses_between_attempts_grow_and_are_capped() -> None:
    assert [pause_after(count, 1.0, 60.0) for count in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert pause_after(10_000, 1.0, 60.0) == 60


@pytest.mark.parametrize(("times", "suppressed"), [([0], False), ([0, 1], False), ([0, 1, 2], True)])
def test_the_third_flap_in_a_row_suppresses(times: list[float], suppressed: bool) -> None:  # noqa: FBT001 - the example
    assert flapped(*times).suppresses(times[-1]) is suppressed


def test_rare_failures_never_suppress() -> None:
    damping = FlapDamping(HALF_LIFE)
    for hour in range(100):
        damping = damping.flapped(hour * 3600.0)
        assert not damping.suppresses(hour * 3600.0)


def test_each_further_flap_lengthens_the_suppression_up_to_three_half_lives() -> None:
    ends, damping = [], flapped(0, 0, 0)
    for _ in range(10):
        ends.append(damping.suppressed_until())
        damping = damping.flapped(0)
    assert ends == sorted(ends)
    assert ends[0] == pytest.approx(HALF_LIFE * 1.585, rel=0.01)
    assert ends[-1] == pytest.approx(3 * HALF_LIFE)


@given(st.lists(st.floats(0, 300), min_size=1, max_size=30))
def test_a_suppression_ends_by_itself_and_the_penalty_is_bounded(pauses: list[float]) -> None:
    now, damping = 0.0, FlapDamping(HALF_LIFE)
    for pause in pauses:
        now += pause
        damping = damping.flapped(now)
        assert damping.level(now) <= LIMIT
    assert not damping.suppresses(now + 3 * HALF_LIFE)


def test_a_clock_that_went_back_counts_as_one_that_stood_still() -> None:
    damping = flapped(1000, 1000, 1000)
    assert damping.level(0) == damping.level(1000) == 3
