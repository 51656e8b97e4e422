"""A projection never lies, whatever happens to its server and its leaders: readers at full speed look on (E1, E2).

Promised to a reader, and checked of every answer: a node was in the pool in the version that it was told with; all
members are those of one version; a pool that was never empty is never answered as empty, and as unknown only while the
projection says that it is not complete; what was told never goes back unless the server lost it; a bound on the age is
kept; a leader that was deposed changes nothing.
"""

from __future__ import annotations

import asyncio

import pytest
from tests.support.torture.course import HURTS, becomes, course_of, torture
from tests.support.torture.leaders import KEYS

from localfleet.redis_groups import ClusterGroup


@pytest.mark.parametrize(("seed", "persist"), [(1, False), (2, True)])
async def test_readers_are_never_told_what_is_not_true_of_a_server_that_is_hurt_all_the_time(
    seed: int, *, persist: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await course_of(seed, monkeypatch, persist=persist)
    assert made.done.keys() == set(HURTS)
    assert sum(leader.refused for leader in made.leaders) > 100


async def test_readers_are_never_told_what_is_not_true_while_a_cluster_fails_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Once to a replica that missed writes and a claim, and once, in order, back.

    At a replica that missed the claim nothing but its own clock stops the former leader, so there it stops.
    """
    with ClusterGroup() as group:
        master, replica = group.shard_of(KEYS.meta)
        seed = next(server for server in group.masters if server is not master)
        async with torture(3, seed.url, monkeypatch, cluster=True) as made:
            await made.work(1)
            with made.history.losing():
                replica.pause()
                await made.work(0.3)
                await made.depose(goes_on=False)
                await made.work(0.3)
                await asyncio.to_thread(master.kill)
                replica.resume()
                await becomes(made, replica, b"role:master")
                await made.recovered()
            await asyncio.to_thread(master.start)
            await becomes(made, master, b"master_link_status:up")
            await made.work(0.5)
            with made.history.losing():
                await asyncio.to_thread(master.ask, "CLUSTER", "FAILOVER")
                await becomes(made, master, b"role:master")
                await made.recovered()
            await made.depose()
            await made.work(0.5)
