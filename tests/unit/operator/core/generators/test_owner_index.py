"""Which pools a generator owns, and which changes of pools wake it (requirement D5)."""

from dataclasses import replace

import pytest
from tests.support.builders import generator, open_state, pool

from hotpool.api.pool import PoolStatus
from hotpool.core.cluster_cache import ClusterCache
from hotpool.core.model import Key, Kind, Meta, Pool

G = Key(Kind.GENERATOR, "g")


def fleet() -> tuple[ClusterCache, Pool]:
    state = open_state()
    state.upsert(generator("g"), 0)
    own = replace(pool("odd", requires={"matchAll": True}), owner="uid-g", status=PoolStatus(members=2))
    state.upsert(own, 0)
    return state, own


def later(of: Pool, version: int) -> Pool:
    return replace(of, meta=Meta(of.meta.name, of.meta.uid, version, of.meta.generation))


def test_pools_are_owned_by_owner_reference_whatever_their_name_and_until_they_go() -> None:
    state, own = fleet()
    assert dict(state.owners.pools_of("uid-g")) == {"odd": own}
    assert dict(state.owners.pools_of("uid-h")) == {}
    given_away = replace(later(own, 2), owner=None)
    assert G in state.upsert(given_away, 1)
    assert dict(state.owners.pools_of("uid-g")) == {}
    back = later(own, 3)
    assert G in state.upsert(back, 1)
    assert dict(state.owners.pools_of("uid-g")) == {"odd": back}
    assert G in state.delete(Kind.POOL, "odd", "uid-odd")
    assert dict(state.owners.pools_of("uid-g")) == {}


@pytest.mark.parametrize(
    ("status", "paused", "wakes"),
    [
        (PoolStatus(members=3), False, False),
        (PoolStatus(members=2, ready="True"), False, False),
        (PoolStatus(members=0), False, True),
        (PoolStatus(members=2), True, True),
    ],
)
def test_a_generator_is_woken_when_a_pool_becomes_empty_and_not_by_every_change_of_a_status(
    status: PoolStatus, *, paused: bool, wakes: bool
) -> None:
    state, own = fleet()
    dirty = state.upsert(replace(later(own, 2), status=status, paused=paused), 1)
    assert (G in dirty) == wakes


def test_a_generator_is_woken_by_pools_that_have_a_name_it_might_give() -> None:
    state, _ = fleet()
    assert G in state.upsert(pool("g-zh-en-12345678", requires={"matchAll": True}), 0)
    assert G in state.delete(Kind.POOL, "g-zh-en-12345678", "uid-g-zh-en-12345678")
    assert G not in state.upsert(pool("gx-zh-en-12345678", requires={"matchAll": True}), 0)
