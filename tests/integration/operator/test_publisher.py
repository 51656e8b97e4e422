"""The mirror over a fake Redis in simulated time: what happens when Redis falls, forgets or knows more (E1, E5).

The same path on a real server: tests/cluster/test_redis_*.py and test_outages.py.

Requirements E4.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from tests.support.simulated_fleet import FakeRedis, now, simulated, until

from hotpool.errors import FencedError, NotLeaderError, RejectedError, RetryableError
from hotpool.observability.metrics import REGISTRY
from hotpool.projection.documents import NodeDocument, PoolDocument
from hotpool.projection.keys import index_field
from hotpool.projection.publisher import RETRY_SECONDS, ROUND_SECONDS, Publisher
from hotpool.projection.redis_errors import OtherClusterError, TermNotClaimedError, VersionConflictError

pytestmark = pytest.mark.timeout(60)

NODE = NodeDocument("a", (("asr", True, None, ("asr-1",)),))


def pool(name: str, *ready: str, key: str | None = None) -> PoolDocument:
    made_by = "pairs" if key else None
    return PoolDocument(name, f"uid-{name}", made_by, key, frozenset(ready), frozenset(), frozenset())


class Ours:
    """A mirror, its Redis and its term."""

    def __init__(self, redis: FakeRedis) -> None:
        self.redis = redis
        self.term = 7
        self.raised: list[int] = []
        self.mirror = Publisher(
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
        self.task = asyncio.create_task(self.mirror.run())

    async def ended(self) -> BaseException | None:
        assert self.task
        await asyncio.wait([self.task], timeout=60)
        return self.task.exception()


@asynccontextmanager
async def running(redis: FakeRedis) -> AsyncIterator[Ours]:
    """A mirror that holds pool `p` with a and b, and node `a`; it has done its first round."""
    ours = Ours(redis)
    await ours.mirror.publish_pool(pool("p", "a", "b"))
    await ours.mirror.publish_node(NODE)
    ours.start()
    await asyncio.sleep(0.5)
    try:
        yield ours
    finally:
        if ours.task:
            ours.task.cancel()
            await asyncio.gather(ours.task, return_exceptions=True)


@simulated
async def test_nothing_is_sent_before_everything_was_given_and_then_all_of_it() -> None:
    redis = FakeRedis()
    ours = Ours(redis)
    await ours.mirror.publish_pool(pool("p", "a"))
    await asyncio.sleep(60)
    assert redis.log == []
    ours.start()
    assert await until(lambda: redis.complete is True) < 1
    assert redis.pools == {"p": pool("p", "a")}
    assert ours.mirror.healthy
    assert ours.task
    ours.task.cancel()


@simulated
async def test_a_change_is_sent_at_once_and_the_same_image_never_twice() -> None:
    async with running(FakeRedis()) as ours:
        await ours.mirror.publish_pool(pool("p", "b"))
        assert ours.redis.pools["p"].ready == {"b"}
        sent = len(ours.redis.log)
        for _ in range(5):
            await ours.mirror.publish_pool(pool("p", "b"))
            await ours.mirror.publish_node(NODE)
        assert len(ours.redis.log) == sent


@simulated
async def test_while_redis_is_away_images_are_remembered_and_the_newest_is_sent_when_it_is_back() -> None:
    async with running(FakeRedis()) as ours:
        ours.redis.fault = RetryableError("away")
        for members in (("a",), ("b",), ("c",)):
            await ours.mirror.publish_pool(pool("p", *members))
        assert not ours.mirror.healthy
        await ours.mirror.publish_pool(pool("new", "a"))
        await ours.mirror.delete_node("a")
        await asyncio.sleep(30)
        sent = len(ours.redis.log)
        ours.redis.fault = None
        assert await until(lambda: ours.mirror.healthy) <= RETRY_SECONDS + 0.2
        assert ours.redis.pools == {"p": pool("p", "c"), "new": pool("new", "a")}
        assert ours.redis.nodes == {}
        assert ours.redis.complete is True
        assert [verb for _, verb, name in ours.redis.log[sent:] if name == "p"] == ["replace_pool"]


@simulated
async def test_a_redis_that_hangs_in_a_whole_repair_holds_up_no_sender() -> None:
    async with running(FakeRedis()) as ours:
        for number in range(500):
            await ours.mirror.publish_pool(pool(f"p{number}", "a"))
        ours.redis.flush()
        await until(lambda: ours.redis.term > 0)
        ours.redis.delay, ours.redis.fault = 2, RetryableError("timed out")
        began = now()
        await asyncio.gather(*(ours.mirror.publish_pool(pool(f"p{number}", "b")) for number in range(100)))
        assert now() - began <= 5
        ours.redis.delay, ours.redis.fault = 0, None
        await until(lambda: ours.mirror.healthy)
        assert ours.redis.pools["p99"] == pool("p99", "b")
        assert len(ours.redis.pools) == 501


@simulated
async def test_a_change_does_not_wait_behind_the_repair_of_a_whole_fleet() -> None:
    async with running(FakeRedis()) as ours:
        for number in range(1000):
            await ours.mirror.publish_pool(pool(f"p{number}", "a"))
        ours.redis.delay = 0.1
        ours.redis.flush()
        await until(lambda: len(ours.redis.pools) > 0)
        began = now()
        await ours.mirror.publish_pool(pool("p", "c"))
        assert now() - began < 0.2
        assert len(ours.redis.pools) < 200


@simulated
async def test_a_slow_redis_delays_its_own_writes_only() -> None:
    async with running(FakeRedis()) as ours:
        ours.redis.delay = 2
        sending = asyncio.create_task(ours.mirror.publish_pool(pool("p", "a")))
        await asyncio.sleep(0)
        assert not sending.done()
        await sending
        assert ours.redis.pools["p"].ready == {"a"}


@simulated
async def test_what_redis_lost_is_whole_again_within_a_round() -> None:
    async with running(FakeRedis()) as ours:
        ours.redis.flush()
        assert await until(lambda: ours.redis.complete is True) <= ROUND_SECONDS + 0.2
        assert ours.redis.pools == {"p": pool("p", "a", "b")}
        assert ours.redis.nodes == {"a": NODE}
        assert ours.redis.term == ours.term


@simulated
async def test_what_somebody_changed_is_put_right_and_nothing_else_is_written() -> None:
    async with running(FakeRedis()) as ours:
        await ours.mirror.publish_pool(pool("q", "a"))
        ours.redis.pools["p"] = pool("p", "stranger")
        ours.redis.pools["stray"] = pool("stray", "a", key="zh-en")
        ours.redis.nodes["ghost"] = NodeDocument("ghost", ())
        ours.redis.index[index_field("pairs", "zh-en")] = "stray"
        sent = len(ours.redis.log)
        await asyncio.sleep(ROUND_SECONDS + 0.2)
        assert ours.redis.pools == {"p": pool("p", "a", "b"), "q": pool("q", "a")}
        assert (ours.redis.nodes, ours.redis.index) == ({"a": NODE}, {})
        touched = {name for _, verb, name in ours.redis.log[sent:] if verb != "stamp"}
        assert touched == {"p", "stray", "ghost", index_field("pairs", "zh-en")}


@simulated
async def test_a_pool_wanted_since_the_audit_began_is_not_dropped_as_a_stray() -> None:
    async with running(FakeRedis()) as ours:
        ours.redis.delay = 0.2
        await until(lambda: len(ours.redis.verbs("")) == 2)
        ours.redis.pools["late"] = pool("late", "x", key="zh-en")
        ours.redis.index[index_field("pairs", "zh-en")] = "late"
        await asyncio.sleep(ROUND_SECONDS + 1.5 * ours.redis.delay)  # the claim is made, the audit under way
        wanted = pool("late", "a", key="zh-en")
        await ours.mirror.publish_pool(wanted)
        await asyncio.sleep(ROUND_SECONDS / 2)
        assert ours.redis.pools["late"] == wanted
        assert ours.redis.index == {index_field("pairs", "zh-en"): "late"}
        assert "drop_pool" not in ours.redis.verbs("late")


@simulated
async def test_a_stale_repair_never_overtakes_a_newer_image() -> None:
    async with running(FakeRedis()) as ours:
        ours.redis.pools["p"] = pool("p", "stranger")
        ours.redis.delay = 0.3
        await asyncio.sleep(ROUND_SECONDS)
        await ours.mirror.publish_pool(pool("p", "b"))
        await asyncio.sleep(2 * ROUND_SECONDS)
        assert ours.redis.pools["p"] == pool("p", "b")


@simulated
async def test_promise_2_a_larger_term_in_redis_raises_ours_before_anything_is_written() -> None:
    redis = FakeRedis()
    redis.term = 41
    async with running(redis) as ours:
        assert ours.raised == [42]
        assert (redis.term, redis.complete) == (42, True)


@simulated
async def test_a_server_that_forgot_our_term_is_claimed_again_at_the_next_write() -> None:
    async with running(FakeRedis()) as ours:
        ours.redis.flush()
        await ours.mirror.publish_pool(pool("p", "b"))
        assert await until(lambda: ours.mirror.healthy) <= RETRY_SECONDS + 0.2
        assert ours.redis.pools == {"p": pool("p", "b")}
        assert ours.redis.nodes == {"a": NODE}


@pytest.mark.parametrize("error", [FencedError("another"), NotLeaderError("over")])
@pytest.mark.parametrize("where", ["claim", "audit", "stamp", "replace_pool p"])
@simulated
async def test_promise_2_lost_leadership_ends_the_rounds(error: Exception, where: str) -> None:
    redis = FakeRedis(refusals={where: error})
    async with running(redis) as ours:
        assert await ours.ended() is error
        ours.task = None


@pytest.mark.parametrize("error", [FencedError("another"), NotLeaderError("over")])
@simulated
async def test_promise_2_lost_leadership_is_told_to_who_gave_the_image(error: Exception) -> None:
    async with running(FakeRedis()) as ours:
        ours.redis.fault = error
        with pytest.raises(type(error)):
            await ours.mirror.publish_pool(pool("p", "b"))


@pytest.mark.parametrize(
    "error",
    [RetryableError("away"), TermNotClaimedError("no term"), VersionConflictError("newer", 9), RejectedError("no")],
)
@simulated
async def test_one_refused_name_is_tried_again_and_the_stamp_says_incomplete(error: Exception) -> None:
    redis = FakeRedis(refusals={"replace_pool bad": error})
    async with running(redis) as ours:
        await ours.mirror.publish_pool(pool("bad", "a"))
        await asyncio.sleep(10)
        assert not ours.mirror.healthy
        assert redis.complete is False
        assert redis.pools["p"] == pool("p", "a", "b")
        redis.refusals.clear()
        assert await until(lambda: ours.mirror.healthy) <= RETRY_SECONDS + 0.2
        assert redis.pools["bad"] == pool("bad", "a")
        assert redis.complete is True


@simulated
async def test_nothing_is_written_before_the_clusters_id_can_be_read() -> None:
    redis = FakeRedis()
    ours = Ours(redis)
    ours.cluster = RetryableError("cannot get namespaces/kube-system: 403")
    await ours.mirror.publish_pool(pool("p", "a"))
    ours.start()
    await asyncio.sleep(60)
    assert (redis.log, redis.term, ours.mirror.last_error) == ([], 0, "cannot get namespaces/kube-system: 403")
    ours.cluster = "cluster-1"
    assert await until(lambda: ours.mirror.healthy) <= RETRY_SECONDS + 0.2
    assert ours.mirror.last_error == ""
    assert redis.pools == {"p": pool("p", "a")}
    assert ours.task
    ours.task.cancel()


@simulated
async def test_another_clusters_projection_is_waited_for_and_no_image_is_held_up() -> None:
    told: list[tuple[bool, str]] = []
    async with running(FakeRedis()) as ours:
        ours.mirror._on_state_change = lambda well, why: told.append((well, why))  # noqa: SLF001 - what `hotpool.app` gives.
        ours.redis.fault = OtherClusterError("another cluster writes here")
        began = now()
        assert not await ours.mirror.publish_pool(pool("p", "b"))
        assert not await ours.mirror.publish_pool(pool("p", "c"))
        assert now() == began
        await asyncio.sleep(60)
        assert ours.mirror.last_error == "another cluster writes here"
        assert set(told) == {(False, "another cluster writes here")}
        assert REGISTRY.get_sample_value("hotpool_redis_up") == 0
        ours.redis.fault = None
        assert await until(lambda: ours.mirror.healthy) <= RETRY_SECONDS + 0.2
        assert ours.redis.pools["p"] == pool("p", "c")


@simulated
async def test_what_the_audit_finds_is_counted_by_what_it_is() -> None:
    def drift() -> dict[str, float]:
        names = ("pool", "node", "index", "stray")
        return {what: REGISTRY.get_sample_value("hotpool_redis_drift_total", {"what": what}) or 0 for what in names}

    async with running(FakeRedis()) as ours:
        await ours.mirror.publish_pool(pool("q", "a"))
        before = drift()
        await asyncio.sleep(3 * ROUND_SECONDS)
        assert drift() == before
        ours.redis.pools["p"] = pool("p", "stranger")
        ours.redis.pools["stray"] = pool("stray", "a")
        ours.redis.nodes["ghost"] = NodeDocument("ghost", ())
        ours.redis.nodes["a"] = NodeDocument("a", ())
        ours.redis.index[index_field("pairs", "zh-en")] = "stray"
        await asyncio.sleep(3 * ROUND_SECONDS)
        found = drift()
        assert {what: found[what] - before[what] for what in found} == {"pool": 1, "node": 1, "index": 1, "stray": 2}
