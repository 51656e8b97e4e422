"""The report equals what truly runs, whatever happens to services, agent, catalogue and network (requirements A, B).

The same course with many more steps: tests/soak/cluster (`make soak`).

Requirements A3, B5.
"""

import random
from collections.abc import Callable

import pytest
from tests.support.agent_world import World


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_report_equals_what_runs_whatever_happens(world_of: Callable[[int], World], seed: int) -> None:
    world = world_of(seed)
    world.begin()
    pauses = random.Random(seed)  # noqa: S311 - a fixed course, no secret
    for _ in range(10):
        for _ in range(pauses.randint(1, 6)):
            world.step()
        world.settle()
    world.end()
