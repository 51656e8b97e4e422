"""Ten thousand hostile objects beside a few honest ones, in simulated time; no cluster. `make soak-pools`."""

import pytest
from tests.flow.fakes import simulated
from tests.flow.test_hostile import hold_up


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(4))
@simulated
async def test_b11_thousands_of_hostile_objects_hold_up_nobody_and_each_is_explained(seed: int) -> None:
    await hold_up(seed, 20)
