"""Look-ups and dispatch while the server, the leaders and dispatchers fail: no result is wrong (E1, E2, E8 to E10).

Checked for every result: a picked node is in the pool in the returned version. All members are of one version. A pool
that was never empty is not returned as empty, and as unknown only while the projection is incomplete. Versions never go
back unless the server lost data. max_age is respected. A deposed leader changes nothing.

Dispatchers reserve, renew, release, report failures and wait meanwhile: no limit is exceeded by reservations that the
server has not lost, each waiting pick ends, one that can be served in the end is served, ejections change no member,
and no slot is left after the longest reservation.
"""

from __future__ import annotations

import asyncio

import pytest
from tests.support.torture.course import FAULTS, fail_over_to, run_torture, torture, wait_for_info
from tests.support.torture.leaders import KEYS

from localfleet.redis_groups import ClusterGroup


@pytest.mark.parametrize(("seed", "persist"), [(1, False), (2, True)])
async def test_readers_get_no_wrong_result_from_a_server_with_repeated_faults(
    seed: int, *, persist: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await run_torture(seed, monkeypatch, persist=persist)
    assert run.fault_counts.keys() == set(FAULTS)
    assert sum(leader.refused for leader in run.leaders) > 100


async def test_readers_get_no_wrong_result_while_a_cluster_fails_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Fail over to a replica that missed writes and a claim, and then in order back.

    At a replica that missed the claim only its own clock stops the former leader, so it stops there.
    """
    with ClusterGroup() as group:
        master, replica = group.shard_of(KEYS.meta)
        seed = next(server for server in group.masters if server is not master)
        async with torture(3, seed.url, monkeypatch, cluster=True) as run:
            await run.work(1)
            with run.history.losing():
                replica.pause()
                await run.work(0.3)
                await run.depose(keep_writing=False)
                await run.work(0.3)
                await asyncio.to_thread(master.kill)
                replica.resume()
                await wait_for_info(run, replica, b"role:master")
                await run.work_until_healthy()
            await asyncio.to_thread(master.start)
            await wait_for_info(run, master, b"master_link_status:up")
            await run.work(0.5)
            with run.history.losing():
                await fail_over_to(run, master)
                await run.work_until_healthy()
            await run.depose()
            await run.work(0.5)
