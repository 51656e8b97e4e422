"""Whether the Lease stream is proven, and the arithmetic of the brake (behaviour C3, D8)."""

from hypothesis import given
from hypothesis import strategies as st

from hotpool.core.brake import brakes
from hotpool.core.liveness import Hearing


def test_c3_the_echo_of_a_renewal_proves_the_stream_until_the_renewal() -> None:
    ear = Hearing()
    assert ear.deaf(0)
    ear.opened(0)
    ear.sent("a", 5)
    ear.echo("a", 6)
    assert ear.proven == 5
    assert not ear.deaf(20)
    assert ear.deaf(20.1)


def test_c3_a_late_echo_proves_no_more_than_its_renewal() -> None:
    ear = Hearing()
    ear.opened(0)
    for second in (5, 10, 15, 20):
        ear.sent(str(second), second)
    ear.echo("5", 22)
    assert ear.proven == 5
    assert ear.deaf(22)
    ear.echo("20", 23)
    assert not ear.deaf(35)


def test_c3_a_standby_hears_the_leaders_canary() -> None:
    ear = Hearing()
    ear.opened(0)
    ear.echo("the leader's", 9)
    ear.echo("the leader's", 14)
    assert ear.proven == 9
    ear.echo("the leader's next", 14)
    assert ear.proven == 14


def test_c3_a_broken_stream_is_deaf_until_it_is_open_again() -> None:
    ear = Hearing()
    ear.opened(0)
    ear.broke()
    assert ear.deaf(1)
    ear.opened(2)
    assert not ear.deaf(2)


@given(st.integers(0, 200), st.integers(0, 200), st.integers(0, 100))
def test_d8_one_may_always_leave_and_more_only_within_the_percentage(silent: int, live: int, percent: int) -> None:
    assert brakes(silent, live, percent) == (silent > max(1, percent / 100 * (silent + live)))
