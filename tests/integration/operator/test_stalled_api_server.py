"""An API server that stalls for 3 s, ten times, in simulated time (requirements C3, D9).

On a real API server: tests/soak/cluster/test_stalled_api_server.py.
"""

import asyncio

import pytest
from tests.support.llm_fleet import llm, no_llm, publish, small_fleet
from tests.support.simulated_fleet import FakeRedis, Fleet, now, operator, simulated, until

from hotpool.core.model import Kind

pytestmark = pytest.mark.timeout(60)

STALL_SECONDS = 3.0
LEADS_SECONDS = 2.5
"""Shortest time for which leadership outlasts the last renewal, if this was due when the stall began."""
ELECTION_SECONDS = 0.25
"""Time in which the elector acquires the Lease again: its pause between two reads."""
GAP_SECONDS = 1.0


async def stall(fleet: Fleet, *, loses_leadership: bool) -> None:
    """Stall the API server. Nothing arrives by watches; leadership ends and returns as that of `LeaderElector`."""
    began, fleet.watch_frozen = now(), True
    fleet.api.answering.clear()
    await asyncio.sleep(LEADS_SECONDS)
    ending = asyncio.create_task(fleet.lose_leadership()) if loses_leadership else None
    await asyncio.sleep(began + STALL_SECONDS - now())
    fleet.api.answering.set()
    fleet.watch_frozen = False
    fleet.beat()
    if ending:
        await asyncio.sleep(ELECTION_SECONDS)
        await ending
        fleet.leading, fleet.term = True, fleet.term + 1
        await fleet.lead()


@pytest.mark.parametrize("loses_leadership", [False, True])
@pytest.mark.parametrize("late_requests", [False, True])
@simulated
async def test_ten_stalls_of_the_api_server_change_no_member_and_writes_follow_within_a_second(
    loses_leadership: bool,  # noqa: FBT001 - a parameter
    late_requests: bool,  # noqa: FBT001 - a parameter
) -> None:
    api, redis = small_fleet(10), FakeRedis()
    api.late_requests = late_requests
    async with operator(api, redis) as fleet:
        await fleet.beating(10)
        conditions = len(api.written(Kind.NODE))
        written = len(api.written(Kind.SLICE))
        for turn in range(10):
            content = no_llm(2 + turn) if turn % 2 == 0 else llm(2 + turn)
            publish(api, "n0", content)
            await asyncio.sleep(0)  # the change arrives, and its writes have no response
            stalled = asyncio.create_task(stall(fleet, loses_leadership=loses_leadership))
            await asyncio.sleep(STALL_SECONDS)
            expected = {f"n{number}" for number in range(turn % 2 == 0, 10)}
            assert await until(lambda expected=expected: set(api.members("llm")) == expected) < GAP_SECONDS  # type: ignore[misc]
            assert set(redis.pools["llm"].ready) == expected
            await stalled
            await fleet.beating(7)
            assert set(api.members("llm").values()) == {"Ready"}
            assert not any(fleet.manager.target_errors().values())
        assert len(api.written(Kind.SLICE)) == written + 10
        assert len(api.written(Kind.NODE)) == conditions
