"""Whether the Lease stream is proven, and the arithmetic of the brake (requirements C3, D8)."""

from hypothesis import given
from hypothesis import strategies as st

from hotpool.core.brake import too_many_silent
from hotpool.core.liveness import WatchHealth


def test_the_echo_of_a_renewal_proves_the_stream_until_the_renewal() -> None:
    ear = WatchHealth()
    assert ear.is_stale(0)
    ear.on_connect(0)
    ear.probe_sent("a", 5)
    ear.probe_received("a", 6)
    assert ear.confirmed_until == 5
    assert not ear.is_stale(20)
    assert ear.is_stale(20.1)


def test_a_late_echo_proves_no_more_than_its_renewal() -> None:
    ear = WatchHealth()
    ear.on_connect(0)
    for second in (5, 10, 15, 20):
        ear.probe_sent(str(second), second)
    ear.probe_received("5", 22)
    assert ear.confirmed_until == 5
    assert ear.is_stale(22)
    ear.probe_received("20", 23)
    assert not ear.is_stale(35)


def test_a_standby_hears_the_leaders_canary() -> None:
    ear = WatchHealth()
    ear.on_connect(0)
    ear.probe_received("the leader's", 9)
    ear.probe_received("the leader's", 14)
    assert ear.confirmed_until == 9
    ear.probe_received("the leader's next", 14)
    assert ear.confirmed_until == 14


def test_a_broken_stream_is_deaf_until_it_is_open_again() -> None:
    ear = WatchHealth()
    ear.on_connect(0)
    ear.on_disconnect()
    assert ear.is_stale(1)
    ear.on_connect(2)
    assert not ear.is_stale(2)


@given(st.integers(0, 200), st.integers(0, 200), st.integers(0, 100))
def test_one_may_always_leave_and_more_only_within_the_percentage(silent: int, live: int, percent: int) -> None:
    assert too_many_silent(silent, live, percent) == (silent > max(1, percent / 100 * (silent + live)))
