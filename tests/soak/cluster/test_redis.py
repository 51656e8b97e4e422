"""Long courses of the torture of Redis, random courses of its writer, and ten thousand pools. `make soak`.

Requirements E1, E2.
"""

import pytest
from tests.cluster.redis.test_many_pools import check_many_pools
from tests.cluster.redis.test_random_course import run_random_courses
from tests.support.torture.course import run_torture

from hotpool.lookup import Lookup
from hotpool.projection.connection.async_connection import Client
from localfleet.redis_server import RedisServer

STEPS = 120


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", range(100, 106))
async def test_readers_are_never_told_what_is_not_true_for_a_long_time(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await run_torture(seed, monkeypatch, persist=seed % 2 == 0, steps=STEPS)
    assert sum(made.fault_counts.values()) == STEPS


@pytest.mark.timeout(3600)
def test_redis_holds_the_last_images_in_hundreds_of_courses(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_random_courses(server, monkeypatch, 300)


@pytest.mark.timeout(3600)
async def test_ten_thousand_pools_are_projected_found_rebuilt_and_dropped(
    server: RedisServer, client: Client, lookup: Lookup
) -> None:
    await check_many_pools(server, client, lookup, 10_000)
