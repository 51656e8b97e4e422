"""Long courses of the torture of Redis, one for each seed. `make soak`."""

import pytest
from tests.cluster.torture_course import course_of

STEPS = 120


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(100, 106))
async def test_e1_e2_readers_are_never_told_what_is_not_true_for_a_long_time(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await course_of(seed, monkeypatch, persist=seed % 2 == 0, steps=STEPS)
    assert sum(made.done.values()) == STEPS
