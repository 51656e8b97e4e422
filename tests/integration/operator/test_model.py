"""Fixed scripts of real operators in simulated time against a second, naive implementation of membership.

Compared after each step: members, slices, status, conditions, generated pools and Redis (requirements B4, C2 to C5, C7,
D1 to D11, E1). Checked at all times: removals have evidence (D9), and D4. `make soak-pools` runs thousands.

Requirements D7, D8, D10.
"""

import pytest
from tests.model.run import check, first_mismatch
from tests.support.builders import pool_object, service

SEEDS = (0, 2, 3, 5, 9, 13, 15, 18, 26, 28, 34, 36, 37, 41, 51, 58, 59, 62, 64, 70, 75, 81, 1005, 1046, 2747, 20339)


@pytest.mark.timeout(240)
@pytest.mark.parametrize("seed", SEEDS)
def test_membership_equals_that_of_the_oracle_in_random_scripts(seed: int) -> None:
    failure = check(seed)
    assert failure is None, failure


def test_a_node_that_people_add_to_a_second_slice_stays_in_one() -> None:
    asr = [service("a", "asr", languages=["zh"])]
    nodes = [("node", f"n{number}", 10, asr) for number in range(5)]
    pool = pool_object("p0", requires={"matchAll": True}, sliceSize=2)
    assert first_mismatch([*nodes, ("put", pool), ("pass", 2), ("slice", 2, "twice"), ("pass", 3)]) is None
