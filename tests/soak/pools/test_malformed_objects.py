"""Ten thousand malformed objects beside a few valid ones, in simulated time; no cluster. `make soak-pools`.

Requirement B11.
"""

import pytest
from tests.integration.operator.test_malformed_objects import run_malformed_objects
from tests.support.simulated_fleet import simulated


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(4))
@simulated
async def test_thousands_of_malformed_objects_delay_no_others_and_each_has_a_condition(seed: int) -> None:
    await run_malformed_objects(seed, 20)
