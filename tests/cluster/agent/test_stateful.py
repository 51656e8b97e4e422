"""The report equals the running services under random changes of services, agent, catalogue and network.

The same test with many more steps: tests/soak/cluster (`make soak`).

Requirements A3, B5.
"""

import random
from collections.abc import Callable

import pytest
from tests.support.agent_world.world import AgentWorld


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_report_equals_the_running_services_in_random_steps(
    agent_world: Callable[[int], AgentWorld], seed: int
) -> None:
    world = agent_world(seed)
    world.begin()
    pauses = random.Random(seed)  # noqa: S311 - fixed pauses, no secret
    for _ in range(10):
        for _ in range(pauses.randint(1, 6)):
            world.step()
        world.settle()
    world.end()
