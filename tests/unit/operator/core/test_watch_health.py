"""Health of the Lease watch, and the arithmetic of the brake (requirements C3, D8)."""

from hypothesis import given
from hypothesis import strategies as st

from hotpool.core.brake import too_many_silent
from hotpool.core.watch_health import WatchHealth


def test_a_received_renewal_confirms_the_watch_until_the_renewal() -> None:
    health = WatchHealth()
    assert health.is_stale(0)
    health.on_connect(0)
    health.probe_sent("a", 5)
    health.probe_received("a", 6)
    assert health.confirmed_until == 5
    assert not health.is_stale(20)
    assert health.is_stale(20.1)


def test_a_late_renewal_confirms_the_watch_only_until_its_write() -> None:
    health = WatchHealth()
    health.on_connect(0)
    for second in (5, 10, 15, 20):
        health.probe_sent(str(second), second)
    health.probe_received("5", 22)
    assert health.confirmed_until == 5
    assert health.is_stale(22)
    health.probe_received("20", 23)
    assert not health.is_stale(35)


def test_a_standby_receives_the_probe_lease_of_the_leader() -> None:
    health = WatchHealth()
    health.on_connect(0)
    health.probe_received("the leader's", 9)
    health.probe_received("the leader's", 14)
    assert health.confirmed_until == 9
    health.probe_received("the leader's next", 14)
    assert health.confirmed_until == 14


def test_a_disconnected_watch_is_stale_until_it_reconnects() -> None:
    health = WatchHealth()
    health.on_connect(0)
    health.on_disconnect()
    assert health.is_stale(1)
    health.on_connect(2)
    assert not health.is_stale(2)


def test_a_watch_that_continues_where_it_broke_confirms_nothing_new() -> None:
    health = WatchHealth()
    health.on_connect(0)
    health.on_disconnect()
    health.on_connect(None)
    assert (health.confirmed_until, health.is_stale(15), health.is_stale(15.1)) == (0, False, True)


@given(st.integers(0, 200), st.integers(0, 200), st.integers(0, 100))
def test_one_may_always_leave_and_more_only_within_the_percentage(silent: int, live: int, percent: int) -> None:
    assert too_many_silent(silent, live, percent) == (silent > max(1, percent / 100 * (silent + live)))
