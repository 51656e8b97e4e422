"""A thousand malformed objects on the real API server. `make soak` (requirement B11)."""

import pytest
from tests.cluster.operator.test_malformed_objects import run_malformed_objects

from localfleet.fleet import Fleet


@pytest.mark.timeout(3600)
def test_a_thousand_malformed_objects_delay_no_others_and_each_has_a_condition(fleet: Fleet) -> None:
    run_malformed_objects(fleet, 4)
