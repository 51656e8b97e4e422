"""Ten thousand hostile objects beside a few honest ones, in simulated time; no cluster. `make soak-pools`.

Requirement B11.
"""

import pytest
from tests.integration.operator.test_malformed_objects import hold_up
from tests.support.simulated_fleet import simulated


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(4))
@simulated
async def test_thousands_of_hostile_objects_hold_up_nobody_and_each_is_explained(seed: int) -> None:
    await hold_up(seed, 20)
