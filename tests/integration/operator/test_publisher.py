"""The publisher over a fake Redis in simulated time: outages, lost data and newer terms of Redis (E1, E5).

On a real server: tests/cluster/redis and tests/cluster/operator/test_outages.py.

Requirements E4.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from hotpool.projection.publisher import RETRY_SECONDS, ROUND_SECONDS, Publisher
from tests.support.simulated_fleet import FakeRedis, now, simulated, until

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

NODE = NodeDocument("a", (("asr", True, None, ("asr-1",)),))


def pool(name: str, *ready: str, key: str | None = None) -> PoolDocument:
    generator = "pairs" if key else None
    return PoolDocument(name, f"uid-{name}", generator, key, frozenset(ready), frozenset(), frozenset())


class RunningPublisher:
    """A publisher, its Redis and its term."""

    def __init__(self, redis: FakeRedis) -> None:
        self.redis = redis
        self.term = 7
        self.raised: list[int] = []
        self.publisher = Publisher(
            cast("Any", redis), term=lambda: self.term, raise_term=self._raise_term, cluster=self._cluster
        )
        self.task: asyncio.Task[None] | None = None
        self.cluster: str | Exception = "cluster-1"

    async def _cluster(self) -> str:
        if isinstance(self.cluster, Exception):
            raise self.cluster
        return self.cluster

    async def _raise_term(self, term: int) -> None:
        self.raised.append(term)
        self.term = term

    def start(self) -> None:
        self.task = asyncio.create_task(self.publisher.run())

    async def ended(self) -> BaseException | None:
        assert self.task
        await asyncio.wait([self.task], timeout=60)
        return self.task.exception()


@asynccontextmanager
async def running(redis: FakeRedis) -> AsyncIterator[RunningPublisher]:
    """Run a publisher with pool `p` of a and b, and node `a`, that has finished its first round."""
    it = RunningPublisher(redis)
    await it.publisher.publish_pool(pool("p", "a", "b"))
    await it.publisher.publish_node(NODE)
    it.start()
    await asyncio.sleep(0.5)
    try:
        yield it
    finally:
        if it.task:
            it.task.cancel()
            await asyncio.gather(it.task, return_exceptions=True)


@simulated
async def test_nothing_is_sent_before_the_publisher_runs_and_then_everything() -> None:
    redis = FakeRedis()
    it = RunningPublisher(redis)
    await it.publisher.publish_pool(pool("p", "a"))
    await asyncio.sleep(60)
    assert redis.log == []
    it.start()
    assert await until(lambda: redis.complete is True) < 1
    assert redis.pools == {"p": pool("p", "a")}
    assert it.publisher.healthy
    assert it.task
    it.task.cancel()


@simulated
async def test_a_change_is_sent_at_once_and_an_unchanged_document_never() -> None:
    async with running(FakeRedis()) as it:
        await it.publisher.publish_pool(pool("p", "b"))
        assert it.redis.pools["p"].ready == {"b"}
        sent = len(it.redis.log)
        for _ in range(5):
            await it.publisher.publish_pool(pool("p", "b"))
            await it.publisher.publish_node(NODE)
        assert len(it.redis.log) == sent


@simulated
async def test_the_newest_documents_are_sent_after_an_outage_of_redis() -> None:
    async with running(FakeRedis()) as it:
        it.redis.fault = RetryableError("away")
        for members in (("a",), ("b",), ("c",)):
            await it.publisher.publish_pool(pool("p", *members))
        assert not it.publisher.healthy
        await it.publisher.publish_pool(pool("new", "a"))
        await it.publisher.delete_node("a")
        await asyncio.sleep(30)
        sent = len(it.redis.log)
        it.redis.fault = None
        assert await until(lambda: it.publisher.healthy) <= RETRY_SECONDS + 0.2
        assert it.redis.pools == {"p": pool("p", "c"), "new": pool("new", "a")}
        assert it.redis.nodes == {}
        assert it.redis.complete is True
        assert [verb for _, verb, name in it.redis.log[sent:] if name == "p"] == ["replace_pool"]


@simulated
async def test_a_redis_that_hangs_during_a_rebuild_delays_no_caller() -> None:
    async with running(FakeRedis()) as it:
        for number in range(500):
            await it.publisher.publish_pool(pool(f"p{number}", "a"))
        it.redis.flush()
        await until(lambda: it.redis.term > 0)
        it.redis.delay, it.redis.fault = 2, RetryableError("timed out")
        began = now()
        await asyncio.gather(*(it.publisher.publish_pool(pool(f"p{number}", "b")) for number in range(100)))
        assert now() - began <= 5
        it.redis.delay, it.redis.fault = 0, None
        await until(lambda: it.publisher.healthy)
        assert it.redis.pools["p99"] == pool("p99", "b")
        assert len(it.redis.pools) == 501


@simulated
async def test_a_change_does_not_wait_for_the_rebuild_of_a_whole_fleet() -> None:
    async with running(FakeRedis()) as it:
        for number in range(1000):
            await it.publisher.publish_pool(pool(f"p{number}", "a"))
        it.redis.delay = 0.1
        it.redis.flush()
        await until(lambda: len(it.redis.pools) > 0)
        began = now()
        await it.publisher.publish_pool(pool("p", "c"))
        assert now() - began < 0.2
        assert len(it.redis.pools) < 200


@simulated
async def test_a_slow_redis_delays_its_own_writes_only() -> None:
    async with running(FakeRedis()) as it:
        it.redis.delay = 2
        sending = asyncio.create_task(it.publisher.publish_pool(pool("p", "a")))
        await asyncio.sleep(0)
        assert not sending.done()
        await sending
        assert it.redis.pools["p"].ready == {"a"}


@simulated
async def test_lost_data_is_written_again_within_a_round() -> None:
    async with running(FakeRedis()) as it:
        it.redis.flush()
        assert await until(lambda: it.redis.complete is True) <= ROUND_SECONDS + 0.2
        assert it.redis.pools == {"p": pool("p", "a", "b")}
        assert it.redis.nodes == {"a": NODE}
        assert it.redis.term == it.term


@simulated
async def test_foreign_changes_are_repaired_and_nothing_else_is_written() -> None:
    async with running(FakeRedis()) as it:
        await it.publisher.publish_pool(pool("q", "a"))
        it.redis.pools["p"] = pool("p", "stranger")
        it.redis.pools["stray"] = pool("stray", "a", key="zh-en")
        it.redis.nodes["ghost"] = NodeDocument("ghost", ())
        it.redis.index[index_field("pairs", "zh-en")] = "stray"
        sent = len(it.redis.log)
        await asyncio.sleep(ROUND_SECONDS + 0.2)
        assert it.redis.pools == {"p": pool("p", "a", "b"), "q": pool("q", "a")}
        assert (it.redis.nodes, it.redis.index) == ({"a": NODE}, {})
        touched = {name for _, verb, name in it.redis.log[sent:] if verb != "stamp"}
        assert touched == {"p", "stray", "ghost", index_field("pairs", "zh-en")}


@simulated
async def test_a_pool_published_during_a_drift_check_is_not_deleted_as_a_stray() -> None:
    async with running(FakeRedis()) as it:
        it.redis.delay = 0.2
        await until(lambda: len(it.redis.writes_of("")) == 2)
        it.redis.pools["late"] = pool("late", "x", key="zh-en")
        it.redis.index[index_field("pairs", "zh-en")] = "late"
        await asyncio.sleep(ROUND_SECONDS + 1.5 * it.redis.delay)  # claimed, and the drift check runs
        wanted = pool("late", "a", key="zh-en")
        await it.publisher.publish_pool(wanted)
        await asyncio.sleep(ROUND_SECONDS / 2)
        assert it.redis.pools["late"] == wanted
        assert it.redis.index == {index_field("pairs", "zh-en"): "late"}
        assert "drop_pool" not in it.redis.writes_of("late")


@simulated
async def test_a_stale_repair_never_replaces_a_newer_document() -> None:
    async with running(FakeRedis()) as it:
        it.redis.pools["p"] = pool("p", "stranger")
        it.redis.delay = 0.3
        await asyncio.sleep(ROUND_SECONDS)
        await it.publisher.publish_pool(pool("p", "b"))
        await asyncio.sleep(2 * ROUND_SECONDS)
        assert it.redis.pools["p"] == pool("p", "b")


@simulated
async def test_a_larger_term_in_redis_raises_the_own_term_before_the_first_write() -> None:
    redis = FakeRedis()
    redis.term = 41
    async with running(redis) as it:
        assert it.raised == [42]
        assert (redis.term, redis.complete) == (42, True)


@simulated
async def test_a_server_that_lost_the_term_is_claimed_again_at_the_next_write() -> None:
    async with running(FakeRedis()) as it:
        it.redis.flush()
        await it.publisher.publish_pool(pool("p", "b"))
        assert await until(lambda: it.publisher.healthy) <= RETRY_SECONDS + 0.2
        assert it.redis.pools == {"p": pool("p", "b")}
        assert it.redis.nodes == {"a": NODE}


@pytest.mark.parametrize("error", [FencedError("another"), NotLeaderError("over")])
@pytest.mark.parametrize("method", ["claim", "check_drift", "stamp", "replace_pool p"])
@simulated
async def test_lost_leadership_ends_the_rounds(error: Exception, method: str) -> None:
    redis = FakeRedis(refusals={method: error})
    async with running(redis) as it:
        assert await it.ended() is error
        it.task = None


@pytest.mark.parametrize("error", [FencedError("another"), NotLeaderError("over")])
@simulated
async def test_lost_leadership_is_raised_to_the_caller(error: Exception) -> None:
    async with running(FakeRedis()) as it:
        it.redis.fault = error
        with pytest.raises(type(error)):
            await it.publisher.publish_pool(pool("p", "b"))


@pytest.mark.parametrize(
    "error",
    [RetryableError("away"), TermNotClaimedError("no term"), VersionConflictError("newer", 9), RejectedError("no")],
)
@simulated
async def test_a_refused_document_is_retried_and_marks_the_projection_incomplete(error: Exception) -> None:
    redis = FakeRedis(refusals={"replace_pool bad": error})
    async with running(redis) as it:
        await it.publisher.publish_pool(pool("bad", "a"))
        await asyncio.sleep(10)
        assert not it.publisher.healthy
        assert redis.complete is False
        assert redis.pools["p"] == pool("p", "a", "b")
        redis.refusals.clear()
        assert await until(lambda: it.publisher.healthy) <= RETRY_SECONDS + 0.2
        assert redis.pools["bad"] == pool("bad", "a")
        assert redis.complete is True


@simulated
async def test_nothing_is_written_before_the_clusters_id_can_be_read() -> None:
    redis = FakeRedis()
    it = RunningPublisher(redis)
    it.cluster = RetryableError("cannot get namespaces/kube-system: 403")
    await it.publisher.publish_pool(pool("p", "a"))
    it.start()
    await asyncio.sleep(60)
    assert (redis.log, redis.term, it.publisher.last_error) == ([], 0, "cannot get namespaces/kube-system: 403")
    it.cluster = "cluster-1"
    assert await until(lambda: it.publisher.healthy) <= RETRY_SECONDS + 0.2
    assert it.publisher.last_error == ""
    assert redis.pools == {"p": pool("p", "a")}
    assert it.task
    it.task.cancel()


@simulated
async def test_the_projection_of_another_cluster_is_not_changed_and_delays_no_caller() -> None:
    changes: list[tuple[bool, str]] = []
    async with running(FakeRedis()) as it:
        it.publisher._on_state_change = lambda healthy, error: changes.append((healthy, error))  # noqa: SLF001 - as in `hotpool.app`.
        it.redis.fault = OtherClusterError("another cluster writes here")
        began = now()
        assert not await it.publisher.publish_pool(pool("p", "b"))
        assert not await it.publisher.publish_pool(pool("p", "c"))
        assert now() == began
        await asyncio.sleep(60)
        assert it.publisher.last_error == "another cluster writes here"
        assert set(changes) == {(False, "another cluster writes here")}
        assert REGISTRY.get_sample_value("hotpool_redis_up") == 0
        it.redis.fault = None
        assert await until(lambda: it.publisher.healthy) <= RETRY_SECONDS + 0.2
        assert it.redis.pools["p"] == pool("p", "c")


@simulated
async def test_drift_is_counted_by_kind() -> None:
    def drift() -> dict[str, float]:
        names = ("pool", "node", "index", "stray")
        return {name: REGISTRY.get_sample_value("hotpool_redis_drift_total", {"what": name}) or 0 for name in names}

    async with running(FakeRedis()) as it:
        await it.publisher.publish_pool(pool("q", "a"))
        before = drift()
        await asyncio.sleep(3 * ROUND_SECONDS)
        assert drift() == before
        it.redis.pools["p"] = pool("p", "stranger")
        it.redis.pools["stray"] = pool("stray", "a")
        it.redis.nodes["ghost"] = NodeDocument("ghost", ())
        it.redis.nodes["a"] = NodeDocument("a", ())
        it.redis.index[index_field("pairs", "zh-en")] = "stray"
        await asyncio.sleep(3 * ROUND_SECONDS)
        after = drift()
        assert {name: after[name] - before[name] for name in after} == {"pool": 1, "node": 1, "index": 1, "stray": 2}


@simulated
async def test_a_new_leader_sends_changes_before_everything_is_published_and_deletes_nothing() -> None:
    redis = FakeRedis()
    async with running(redis):
        pass
    redis.pools["stray"] = pool("stray", "a")
    redis.log.clear()
    leader, published = RunningPublisher(redis), asyncio.Event()
    leader.term = 8
    await leader.publisher.publish_pool(pool("p", "b"))
    await leader.publisher.publish_node(NODE)
    following = asyncio.create_task(leader.publisher.follow(published))
    await asyncio.sleep(RETRY_SECONDS)
    assert [(verb, name) for _, verb, name in redis.log] == [("replace_pool", "p")]
    await leader.publisher.publish_pool(pool("later", "b"))
    assert redis.pools["later"] == pool("later", "b")
    redis.fault = RetryableError("away")
    await leader.publisher.publish_pool(pool("p", "c"))
    await asyncio.sleep(10)
    redis.fault = None
    assert await until(lambda: redis.pools["p"] == pool("p", "c")) <= RETRY_SECONDS + 0.2
    assert "stray" in redis.pools
    assert (leader.publisher.healthy, redis.complete) == (False, True)
    published.set()
    await following


@simulated
async def test_the_failure_of_one_name_does_not_keep_others_waiting() -> None:
    growing = {f"replace_pool {number:03}": RedisFullError("full") for number in range(132)}
    redis = FakeRedis(refusals=cast("dict[str, BaseException]", growing))
    async with running(redis) as it:
        for number in range(132):
            await it.publisher.publish_pool(pool(f"{number:03}", "a"))
        await it.publisher.publish_pool(pool("p", "b"))
        assert redis.pools["p"] == pool("p", "b")
        redis.pools["p"] = pool("p", "a")
        assert await until(lambda: redis.pools["p"] == pool("p", "b")) <= RETRY_SECONDS + 0.2
        assert not it.publisher.healthy
