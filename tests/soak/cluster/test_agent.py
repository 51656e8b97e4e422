"""Thousands of random steps of the stateful test of the agent; each seed is a new fleet. `make soak` shows progress.

Requirements A3, B5.
"""

import random
from collections.abc import Callable

import pytest
from tests.support.agent_world.world import AgentWorld

STEPS = 250


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(100, 112))
def test_the_report_equals_the_running_services_for_thousands_of_steps(
    agent_world: Callable[[int], AgentWorld], seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    world, pauses = agent_world(seed), random.Random(seed)  # noqa: S311 - fixed pauses, no secret
    world.begin()
    while len(world.steps) < STEPS:
        for _ in range(pauses.randint(1, 8)):
            world.step()
        world.settle()
        with capsys.disabled():
            print(f"\rseed {seed}: {len(world.steps)} of {STEPS} steps", end="", flush=True)  # noqa: T201
    world.end()
