"""The worker of Redis over a fake Redis in simulated time: outages, lost data, newer terms, drift (E1, E5).

On a real server: tests/cluster/redis and tests/cluster/operator/test_outages.py.

Requirements E4.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from tests.support.leadership import FixedLeadership
from tests.support.redis_fleet import RedisFleet
from tests.support.simulated_fleet import FakeRedis, simulated, until

from hotpool.clock import Clock
from hotpool.controllers.worker import RETRY_SECONDS
from hotpool.core.model import Kind
from hotpool.errors import FencedError, NotLeaderError, RejectedError, RetryableError
from hotpool.observability.metrics import REGISTRY
from hotpool.projection.documents import NodeDocument, PoolDocument
from hotpool.projection.keys import index_field
from hotpool.projection.redis_errors import (
    OtherClusterError,
    RedisFullError,
    TermNotClaimedError,
    VersionConflictError,
)

pytestmark = pytest.mark.timeout(60)

CHECK_SECONDS = 5.0
NODE = NodeDocument("a", (("asr", True, None, ("asr-1",)),))


def pool(name: str, *ready: str, key: str | None = None) -> PoolDocument:
    generator = "pairs" if key else None
    return PoolDocument(name, f"uid-{name}", generator, key, frozenset(ready), frozenset(), frozenset())


def fleet(redis: FakeRedis, term: int = 7) -> RedisFleet:
    time = asyncio.get_running_loop().time
    return RedisFleet(cast("Any", redis), FixedLeadership(term), Clock(time, time))


@asynccontextmanager
async def leading(it: RedisFleet) -> AsyncIterator[asyncio.Task[None]]:
    """Run the worker in the block."""
    task = asyncio.create_task(it.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def running(redis: FakeRedis) -> AsyncIterator[RedisFleet]:
    """Run a fleet with pool `p` of a and b, and node `a`; everything was written and compared."""
    it = fleet(redis)
    it.set_pool(pool("p", "a", "b"))
    it.set_node(NODE)
    async with leading(it):
        await asyncio.sleep(0.5)
        yield it


@simulated
async def test_nothing_is_sent_before_the_worker_runs_and_then_everything() -> None:
    redis = FakeRedis()
    it = fleet(redis)
    it.set_pool(pool("p", "a"))
    await asyncio.sleep(60)
    assert redis.log == []
    async with leading(it):
        assert await until(lambda: redis.complete is True) < 1
        assert redis.pools == {"p": pool("p", "a")}
        assert it.healthy


@simulated
async def test_a_change_is_sent_at_once_and_an_unchanged_document_never() -> None:
    redis = FakeRedis()
    async with running(redis) as it:
        it.set_pool(pool("p", "b"))
        assert await until(lambda: redis.pools["p"].ready == {"b"}) <= 0.01
        sent = len(redis.log)
        for _ in range(5):
            it.set_pool(pool("p", "b"))
            it.set_node(NODE)
            await asyncio.sleep(0.01)
        assert len(redis.log) == sent


@simulated
async def test_the_newest_documents_are_sent_after_an_outage_of_redis() -> None:
    redis = FakeRedis()
    async with running(redis) as it:
        redis.fault = RetryableError("away")
        for members in (("a",), ("b",), ("c",)):
            it.set_pool(pool("p", *members))
            await asyncio.sleep(0)
        it.set_pool(pool("new", "a"))
        it.delete(Kind.NODE, "a")
        await asyncio.sleep(30)
        assert it.error == "away"
        sent = len(redis.log)
        redis.fault = None
        assert await until(lambda: it.healthy) <= RETRY_SECONDS + 0.2
        assert redis.pools == {"p": pool("p", "c"), "new": pool("new", "a")}
        assert redis.nodes == {}
        assert redis.complete is True
        assert [verb for _, verb, name in redis.log[sent:] if name == "p"] == ["replace_pool"]


@simulated
async def test_the_newest_documents_are_sent_after_a_rebuild_in_which_redis_hangs() -> None:
    redis = FakeRedis()
    async with running(redis) as it:
        for number in range(500):
            it.set_pool(pool(f"p{number}", "a"))
        await until(lambda: len(redis.pools) == 501)
        redis.flush()
        await until(lambda: redis.term > 0)
        redis.delay, redis.fault = 2, RetryableError("timed out")
        for number in range(100):
            it.set_pool(pool(f"p{number}", "b"))
        await until(lambda: it.error == "timed out")
        redis.delay, redis.fault = 0, None
        await until(lambda: it.healthy)
        assert redis.pools["p99"] == pool("p99", "b")
        assert len(redis.pools) == 501


@simulated
async def test_a_change_does_not_wait_for_the_rebuild_of_a_whole_fleet() -> None:
    redis = FakeRedis()
    async with running(redis) as it:
        for number in range(1000):
            it.set_pool(pool(f"p{number}", "a"))
        await until(lambda: len(redis.pools) == 1001)
        redis.delay = 0.1
        redis.flush()
        await until(lambda: len(redis.pools) > 0)
        it.set_pool(pool("p", "c"))
        assert await until(lambda: "p" in redis.pools and redis.pools["p"] == pool("p", "c")) <= 2.2 * redis.delay
        assert len(redis.pools) < 200


@simulated
async def test_lost_data_is_written_again_within_a_drift_check() -> None:
    redis = FakeRedis()
    async with running(redis) as it:
        redis.flush()
        assert await until(lambda: redis.complete is True) <= CHECK_SECONDS + 0.2
        assert redis.pools == {"p": pool("p", "a", "b")}
        assert redis.nodes == {"a": NODE}
        assert redis.term == it.leadership.term


@simulated
async def test_foreign_changes_are_repaired_and_nothing_else_is_written() -> None:
    redis = FakeRedis()
    async with running(redis) as it:
        it.set_pool(pool("q", "a"))
        await until(lambda: "q" in redis.pools)
        redis.pools["p"] = pool("p", "stranger")
        redis.pools["stray"] = pool("stray", "a", key="zh-en")
        redis.nodes["ghost"] = NodeDocument("ghost", ())
        redis.index[index_field("pairs", "zh-en")] = "stray"
        sent = len(redis.log)
        await asyncio.sleep(CHECK_SECONDS + 0.2)
        assert redis.pools == {"p": pool("p", "a", "b"), "q": pool("q", "a")}
        assert (redis.nodes, redis.index, redis.complete) == ({"a": NODE}, {}, True)
        touched = {name for _, verb, name in redis.log[sent:] if verb != "stamp"}
        assert touched == {"p", "stray", "ghost", index_field("pairs", "zh-en")}


@simulated
async def test_the_stray_capability_of_a_node_that_leaves_is_deleted() -> None:
    redis = FakeRedis()
    async with running(redis) as it:
        it.set_node(NODE, leaving=True)
        await until(lambda: not redis.nodes)
        await asyncio.sleep(CHECK_SECONDS)
        redis.nodes["a"] = NODE
        await until(lambda: not redis.nodes)
        await until(lambda: redis.complete is True)


@simulated
async def test_a_pool_created_during_a_drift_check_is_not_deleted_as_a_stray() -> None:
    redis = FakeRedis()
    async with running(redis) as it:
        redis.delay = 0.2
        await until(lambda: len(redis.writes_of("")) == 2)
        redis.pools["late"] = pool("late", "x", key="zh-en")
        redis.index[index_field("pairs", "zh-en")] = "late"
        await asyncio.sleep(CHECK_SECONDS + redis.delay / 2)  # the drift check runs
        wanted = pool("late", "a", key="zh-en")
        it.set_pool(wanted)
        await asyncio.sleep(CHECK_SECONDS / 2)
        assert redis.pools["late"] == wanted
        assert redis.index == {index_field("pairs", "zh-en"): "late"}
        assert "drop_pool" not in redis.writes_of("late")


@simulated
async def test_a_stale_repair_never_replaces_a_newer_document() -> None:
    redis = FakeRedis()
    async with running(redis) as it:
        redis.pools["p"] = pool("p", "stranger")
        redis.delay = 0.3
        await asyncio.sleep(CHECK_SECONDS)
        it.set_pool(pool("p", "b"))
        await asyncio.sleep(2 * CHECK_SECONDS)
        assert redis.pools["p"] == pool("p", "b")


@simulated
async def test_a_larger_term_in_redis_raises_the_own_term_before_the_first_write() -> None:
    redis = FakeRedis()
    redis.term = 41
    async with running(redis) as it:
        assert (it.leadership.term, redis.term, redis.complete) == (42, 42, True)


@simulated
async def test_a_server_that_lost_the_term_is_claimed_again_at_the_next_write() -> None:
    redis = FakeRedis()
    async with running(redis) as it:
        await asyncio.sleep(RETRY_SECONDS)
        redis.flush()
        it.set_pool(pool("p", "b"))
        assert await until(lambda: redis.complete is True) <= RETRY_SECONDS + 0.2
        assert redis.pools == {"p": pool("p", "b")}
        assert redis.nodes == {"a": NODE}
        assert await until(lambda: it.healthy) <= 0.1


@pytest.mark.parametrize("error", [FencedError("another"), NotLeaderError("over")])
@pytest.mark.parametrize("method", ["claim", "check_drift", "stamp", "replace_pool p"])
@simulated
async def test_lost_leadership_ends_the_work(error: Exception, method: str) -> None:
    it = fleet(FakeRedis(refusals={method: error}))
    it.set_pool(pool("p", "a"))
    async with leading(it) as task:
        await asyncio.wait([task], timeout=60)
        assert task.exception() is error


@pytest.mark.parametrize(
    "error",
    [RetryableError("away"), TermNotClaimedError("no term"), VersionConflictError("newer", 9), RejectedError("no")],
)
@simulated
async def test_a_refused_document_is_retried_and_marks_the_projection_incomplete(error: Exception) -> None:
    redis = FakeRedis()
    async with running(redis) as it:
        redis.refusals["replace_pool bad"] = error
        it.set_pool(pool("bad", "a"))
        await until(lambda: redis.complete is False, RETRY_SECONDS + 0.2)
        await asyncio.sleep(10)
        assert (it.error, redis.complete) == (str(error), False)
        assert redis.pools["p"] == pool("p", "a", "b")
        tried = redis.claims
        await asyncio.sleep(10)
        assert redis.claims - tried <= 10 / RETRY_SECONDS + 1
        redis.refusals.clear()
        assert await until(lambda: it.healthy) <= RETRY_SECONDS + 0.2
        assert redis.pools["bad"] == pool("bad", "a")
        assert redis.complete is True


@simulated
async def test_a_withdrawal_that_failed_is_retried() -> None:
    redis = FakeRedis()
    async with running(redis) as it:
        redis.refusals["drop_node a"] = RedisFullError("full")
        it.set_node(NODE, leaving=True)
        await asyncio.sleep(2 * CHECK_SECONDS)
        redis.refusals.clear()
        assert await until(lambda: it.healthy) <= RETRY_SECONDS + 0.2
        assert redis.nodes == {}
        assert redis.complete is True


@simulated
async def test_nothing_is_written_before_the_clusters_id_can_be_read() -> None:
    redis = FakeRedis()
    it = fleet(redis)
    it.cluster = RetryableError("cannot get namespaces/kube-system: 403")
    it.set_pool(pool("p", "a"))
    async with leading(it):
        await asyncio.sleep(60)
        assert (redis.log, redis.term, it.error) == ([], 0, "cannot get namespaces/kube-system: 403")
        it.cluster = "cluster-1"
        assert await until(lambda: it.healthy) <= RETRY_SECONDS + 0.2
        assert redis.pools == {"p": pool("p", "a")}


@simulated
async def test_the_projection_of_another_cluster_is_not_changed() -> None:
    redis = FakeRedis()
    async with running(redis) as it:
        redis.fault = OtherClusterError("another cluster writes here")
        it.set_pool(pool("p", "b"))
        it.set_pool(pool("p", "c"))
        await asyncio.sleep(60)
        assert it.errors == ["", "another cluster writes here"]
        assert redis.pools["p"] == pool("p", "a", "b")
        redis.fault = None
        assert await until(lambda: it.healthy) <= RETRY_SECONDS + 0.2
        assert redis.pools["p"] == pool("p", "c")


@simulated
async def test_drift_is_counted_by_kind() -> None:
    def drift() -> dict[str, float]:
        names = ("pool", "node", "index", "stray")
        return {name: REGISTRY.get_sample_value("hotpool_redis_drift_total", {"what": name}) or 0 for name in names}

    def counted() -> dict[str, float]:
        return {name: value - before[name] for name, value in drift().items()}

    redis = FakeRedis()
    async with running(redis) as it:
        it.set_pool(pool("q", "a"))
        before = drift()
        await asyncio.sleep(3 * CHECK_SECONDS)
        assert drift() == before
        redis.pools["p"] = pool("p", "stranger")
        redis.pools["stray"] = pool("stray", "a")
        redis.nodes["ghost"] = NodeDocument("ghost", ())
        redis.nodes["a"] = NodeDocument("a", ())
        redis.index[index_field("pairs", "zh-en")] = "stray"
        await asyncio.sleep(3 * CHECK_SECONDS)
        assert counted() == {"pool": 1, "node": 1, "index": 1, "stray": 2}
        before = drift()
        redis.flush()
        await asyncio.sleep(3 * CHECK_SECONDS)
        assert counted() == {"pool": 2, "node": 1, "index": 0, "stray": 0}


@simulated
async def test_a_new_leader_writes_what_changed_and_deletes_what_is_gone() -> None:
    redis = FakeRedis()
    async with running(redis):
        pass
    redis.pools["stray"] = pool("stray", "a")
    redis.log.clear()
    leader = fleet(redis, term=8)
    leader.set_pool(pool("p", "b"))
    leader.set_node(NODE)
    async with leading(leader):
        await until(lambda: leader.healthy)
        assert redis.writes_of("p") == ["replace_pool"]
        assert redis.writes_of("stray") == ["drop_pool"]
        assert redis.writes_of("a") == []
        assert (redis.complete, redis.writes_of("")) == (True, ["stamp"])


@simulated
async def test_the_failure_of_one_name_does_not_keep_others_waiting() -> None:
    growing = {f"replace_pool {number:03}": RedisFullError("full") for number in range(132)}
    redis = FakeRedis(refusals=cast("dict[str, BaseException]", growing))
    async with running(redis) as it:
        for number in range(132):
            it.set_pool(pool(f"{number:03}", "a"))
        it.set_pool(pool("p", "b"))
        assert await until(lambda: redis.pools["p"] == pool("p", "b")) <= 0.1
        redis.pools["p"] = pool("p", "a")
        assert await until(lambda: redis.pools["p"] == pool("p", "b")) <= RETRY_SECONDS + 0.2
        assert not it.healthy
