"""A thousand hostile objects on the real API server. `make soak` (requirement B11)."""

import pytest
from tests.cluster.operator.test_malformed_objects import hold_up

from localfleet.fleet import Fleet


@pytest.mark.timeout(3600)
def test_a_thousand_hostile_objects_hold_up_nobody_and_each_is_explained(fleet: Fleet) -> None:
    hold_up(fleet, 4)
