"""Thousands of steps of the stateful test of the agent; each seed is a fresh fleet. `make soak` shows the progress.

Requirements A3, B5.
"""

import random
from collections.abc import Callable

import pytest
from tests.support.agent_world import World

STEPS = 250


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(100, 112))
def test_the_report_equals_what_runs_for_a_long_time(
    world_of: Callable[[int], World], seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    world, pauses = world_of(seed), random.Random(seed)  # noqa: S311 - a fixed course, no secret
    world.begin()
    while len(world.steps) < STEPS:
        for _ in range(pauses.randint(1, 8)):
            world.step()
        world.settle()
        with capsys.disabled():
            print(f"\rseed {seed}: {len(world.steps)} of {STEPS} steps", end="", flush=True)  # noqa: T201
    world.end()
