"""Pauses between attempts (requirement B9): growing, limited, jittered."""

import random

from hypothesis import given
from hypothesis import strategies as st

from hotpool.common.backoff import Backoff

AGENTS = 1000
H = 15.0


@given(st.floats(0.01, 5), st.integers(1, 120), st.lists(st.floats(0, 1000), min_size=1, max_size=20))
def test_a_pause_grows_to_the_limit_and_never_beyond(first: float, limit: int, minimums: list[float]) -> None:
    backoff, base = Backoff(first, limit), min(first, limit)
    for at_least in minimums:
        pause = backoff.pause(at_least)
        assert max(base / 2, min(at_least, limit)) <= pause <= max(base, min(at_least, limit))
        base = min(base * 2, limit)
    backoff.reset()
    assert backoff.pause() <= min(first, limit)


def test_agents_that_fail_together_do_not_retry_together() -> None:
    random.seed(7)
    fleet = [Backoff(1.0, H) for _ in range(AGENTS)]
    now = [0.0] * AGENTS
    for _ in range(6):
        now = [moment + backoff.pause() for moment, backoff in zip(now, fleet, strict=True)]
    # All start together. At the sixth attempt they spread over ten seconds, none of which has more than a quarter.
    seconds = [sum(int(moment) == second for moment in now) for second in range(int(max(now)) + 1)]
    assert max(seconds) <= AGENTS / 4
    assert sum(count > 0 for count in seconds) >= 10
