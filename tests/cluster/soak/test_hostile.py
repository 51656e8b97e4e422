"""A thousand hostile objects on the real API server. `make soak`."""

import pytest
from tests.cluster.test_hostile import hold_up

from localfleet.fleet import Fleet


@pytest.mark.timeout(3600)
def test_b11_a_thousand_hostile_objects_hold_up_nobody_and_each_is_explained(fleet: Fleet) -> None:
    hold_up(fleet, 4)
