"""Pools owned by a generator, and changes of pools that mark it (requirement D5)."""

from dataclasses import replace

import pytest
from tests.support.builders import generator, open_cache, pool

from hotpool.api.pool import PoolStatus
from hotpool.core.cluster_cache import ClusterCache
from hotpool.core.model import Key, Kind, Meta, Pool

G = Key(Kind.GENERATOR, "g")


def fleet() -> tuple[ClusterCache, Pool]:
    cache = open_cache()
    cache.upsert(generator("g"), 0)
    own = replace(pool("odd", requires={"matchAll": True}), owner="uid-g", status=PoolStatus(members=2))
    cache.upsert(own, 0)
    return cache, own


def later(of: Pool, version: int) -> Pool:
    return replace(of, meta=Meta(of.meta.name, of.meta.uid, version, of.meta.generation))


def test_pools_are_owned_by_owner_reference_with_any_name_until_deletion() -> None:
    cache, own = fleet()
    assert dict(cache.owners.pools_of("uid-g")) == {"odd": own}
    assert dict(cache.owners.pools_of("uid-h")) == {}
    given_away = replace(later(own, 2), owner=None)
    assert G in cache.upsert(given_away, 1)
    assert dict(cache.owners.pools_of("uid-g")) == {}
    back = later(own, 3)
    assert G in cache.upsert(back, 1)
    assert dict(cache.owners.pools_of("uid-g")) == {"odd": back}
    assert G in cache.delete(Kind.POOL, "odd", "uid-odd")
    assert dict(cache.owners.pools_of("uid-g")) == {}


@pytest.mark.parametrize(
    ("status", "paused", "marked"),
    [
        (PoolStatus(members=3), False, False),
        (PoolStatus(members=2, ready="True"), False, False),
        (PoolStatus(members=0), False, True),
        (PoolStatus(members=2), True, True),
    ],
)
def test_a_generator_is_marked_when_a_pool_becomes_empty_and_not_by_every_change_of_a_status(
    status: PoolStatus, *, paused: bool, marked: bool
) -> None:
    cache, own = fleet()
    dirty = cache.upsert(replace(later(own, 2), status=status, paused=paused), 1)
    assert (G in dirty) == marked


def test_a_generator_is_marked_by_pools_with_a_name_that_it_could_give() -> None:
    cache, _ = fleet()
    assert G in cache.upsert(pool("g-zh-en-12345678", requires={"matchAll": True}), 0)
    assert G in cache.delete(Kind.POOL, "g-zh-en-12345678", "uid-g-zh-en-12345678")
    assert G not in cache.upsert(pool("gx-zh-en-12345678", requires={"matchAll": True}), 0)
