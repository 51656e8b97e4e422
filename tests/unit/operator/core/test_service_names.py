"""Names of Services that several pools want (requirement D12)."""

from dataclasses import replace
from typing import Any

from tests.support.builders import open_cache, pool, requires

from hotpool.core.model import Key, Kind, Pool
from hotpool.core.service_names import ServiceNames, service_name

PORTS = {"ports": [{"type": "asr", "port": 80}]}


def wanting(pool_name: str, created: str, **service: Any) -> Pool:
    return replace(pool(pool_name, requires=requires("asr"), service={**PORTS, **service}), created=created)


def test_the_name_of_a_service_is_that_of_the_spec_or_of_the_pool() -> None:
    assert service_name(wanting("p", "t")) == "p"
    assert service_name(wanting("p", "t", name="s")) == "s"
    assert service_name(pool("p", requires=requires("asr"))) is None


def test_the_oldest_pool_holds_a_name_and_of_two_of_one_second_the_first_by_name() -> None:
    names = ServiceNames()
    assert names.put(wanting("b", "2026-01-02", name="s")) == set()
    assert names.put(wanting("c", "2026-01-01", name="s")) == {"b"}
    assert names.put(wanting("a", "2026-01-01", name="s")) == {"b", "c"}
    assert names.holder("s") == "a"
    assert names.remove(wanting("a", "2026-01-01", name="s")) == {"b", "c"}
    assert names.holder("s") == "c"
    names.remove(wanting("c", "2026-01-01", name="s"))
    names.remove(wanting("b", "2026-01-02", name="s"))
    assert names.holder("s") is None


def test_pools_that_want_one_name_become_due_together() -> None:
    cache = open_cache()
    cache.upsert(wanting("old", "2026-01-01", name="s"), 0)
    new = wanting("new", "2026-01-02", name="s")
    assert cache.upsert(replace(new, meta=replace(new.meta, version=2)), 0) == {
        Key(Kind.POOL, "old"),
        Key(Kind.POOL, "new"),
    }
    assert Key(Kind.POOL, "new") in cache.delete(Kind.POOL, "old", "uid-old")
    renamed = wanting("new", "2026-01-02", name="t")
    cache.upsert(replace(renamed, meta=replace(renamed.meta, version=3)), 0)
    assert (cache.service_names.holder("s"), cache.service_names.holder("t")) == (None, "new")
