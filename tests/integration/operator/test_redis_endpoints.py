"""Endpoints on their way to Redis, over a fake Redis in simulated time (E3, E7). On a real one: tests/cluster/redis."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from typing import TYPE_CHECKING, Any, cast

import pytest
from tests.support.builders import core_report, offer, pool, slice_
from tests.support.leadership import FixedLeadership
from tests.support.redis_fleet import RedisFleet
from tests.support.simulated_fleet import FakeRedis, simulated, until

from hotpool.clock import Clock
from hotpool.core.model import Key, Kind, Liveness, Meta, Node, NodeAddress, ServiceEndpoint, ServiceOffer
from hotpool.errors import RetryableError
from hotpool.observability.metrics import REGISTRY

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from hotpool.projection.documents import NodeDocument, PoolDocument

pytestmark = pytest.mark.timeout(60)

RIGHT = "HSET {hotpool:speech}:endpoints"
_VERSIONS = count(1)


def asr(id_: str, port: int, tier: str = "gold") -> ServiceOffer:
    """Return a ready service with an endpoint."""
    return replace(offer(id_, "asr", tier=[tier]), endpoint=ServiceEndpoint(port))


def put(it: RedisFleet, *offers: ServiceOffer, name: str = "a", **more: Any) -> None:
    """Let the agent of a node report these services."""
    version = next(_VERSIONS)
    report = core_report(*offers, sequence=version, addresses=(NodeAddress("10.0.3.7", "Route"),), **more)
    it.put(Node(Meta(name, f"uid-{name}", version), report=report))


def put_pool(it: RedisFleet, tier: str, **more: Any) -> None:
    """Create a pool of the nodes with an asr service of this tier, named as the tier."""
    required = {"type": "asr", "attributes": [{"key": "tier", "anyOf": [tier]}]}
    it.put(pool(tier, version=next(_VERSIONS), requires={"types": [required], **more.pop("requires", {})}, **more))


def set_liveness(it: RedisFleet, liveness: Liveness, **more: Any) -> None:
    """Change how node `a` is heard."""
    tracker = it.cache.nodes["a"]
    tracker.view = replace(tracker.view, liveness=liveness, **more)
    it.worker.add([Key(Kind.NODE, "a")], asyncio.get_running_loop().time())


@asynccontextmanager
async def running(redis: FakeRedis) -> AsyncIterator[RedisFleet]:
    """Run a fleet with node `a` and its service `fw` of tier gold, and the pools gold and silver."""
    time = asyncio.get_running_loop().time
    it = RedisFleet(cast("Any", redis), FixedLeadership(7), Clock(time, time))
    put_pool(it, "gold")
    put_pool(it, "silver")
    put(it, asr("fw", 6007))
    task = asyncio.create_task(it.run())
    try:
        await until(lambda: redis.complete is True)
        yield it
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@dataclass
class SlowRedis(FakeRedis):
    """A fake Redis in which writes can overtake one another, and the services of pools that picks would see."""

    slow: str = ""
    """Method and name of the writes that take 0.1 s longer."""
    services: dict[str, dict[str, str]] = field(default_factory=dict)
    """Pool → node → ids of the services that meet the pool, where not all do."""
    seen: list[tuple[str, str | None]] = field(default_factory=list)
    """Endpoints of node a, and its services that meet pool gold, after each write."""

    async def replace_pool(self, document: PoolDocument) -> None:
        """Store a pool with the services of its members."""
        await super().replace_pool(document)
        self.services[document.name] = dict(document.services.exceptions)
        self._note()

    async def replace_node(self, document: NodeDocument, exceptions: Mapping[str, str] | None = None) -> None:
        """Store a node, and its services in pools."""
        await super().replace_node(document, exceptions)
        for name, services in (exceptions or {}).items():
            self.services.setdefault(name, {})[document.name] = services
        self._note()

    def _note(self) -> None:
        if "a" in self.nodes:
            self.seen.append((self.nodes["a"].endpoints, self.services.get("gold", {}).get("a")))

    async def _raise_fault(self, verb: str, name: str) -> None:
        await super()._raise_fault(verb, name)
        if f"{verb} {name}" == self.slow:
            await asyncio.sleep(0.1)


def exceptions_of(redis: FakeRedis) -> dict[str, dict[str, str]]:
    return {name: dict(document.services.exceptions) for name, document in redis.pools.items()}


@simulated
async def test_the_endpoints_of_a_node_are_written_with_its_document() -> None:
    redis = FakeRedis()
    async with running(redis):
        assert redis.nodes["a"].endpoints == "asr|fw|6007||10.0.3.7"
        assert redis.pools["gold"].services.encode() == "f:asr"
        assert redis.pools["gold"].ready == {"a"}
        assert exceptions_of(redis) == {"gold": {}, "silver": {}}


@simulated
async def test_a_changed_port_is_one_write_of_the_node_and_none_of_a_pool() -> None:
    redis = FakeRedis()
    async with running(redis) as it:
        sent = len(redis.log)
        put(it, asr("fw", 6009))
        assert await until(lambda: redis.nodes["a"].endpoints == "asr|fw|6009||10.0.3.7") <= 0.01
        await asyncio.sleep(0.5)
        assert [(verb, name) for _, verb, name in redis.log[sent:]] == [("replace_node", "a")]


@simulated
async def test_limits_are_one_write_of_the_node_and_none_of_a_pool() -> None:
    """E9: of a service as its agent reports it, and of a type as people write it."""
    redis = FakeRedis()
    async with running(redis) as it:
        sent = len(redis.log)
        put(it, replace(asr("fw", 6007), max_concurrent=8))
        assert await until(lambda: redis.nodes["a"].endpoints == "asr|fw|6007||10.0.3.7|8") <= 0.01
        limited = it.cache.nodes["a"].view.node
        it.put(replace(limited, meta=replace(limited.meta, version=next(_VERSIONS)), limits={"asr": 4}))
        assert await until(lambda: redis.nodes["a"].endpoints == "asr|fw|6007||10.0.3.7|8 asr|4") <= 0.01
        await asyncio.sleep(0.5)
        assert [(verb, name) for _, verb, name in redis.log[sent:]] == [("replace_node", "a")] * 2
        put(it, replace(asr("fw", 6007), endpoint=None, max_concurrent=8))
        await until(lambda: redis.nodes["a"].endpoints == "asr|fw||||8")


@simulated
async def test_a_pool_that_requires_endpoints_says_so_in_its_facts() -> None:
    redis = FakeRedis()
    async with running(redis) as it:
        put_pool(it, "gold", requires={"endpoint": "Required"})
        await until(lambda: redis.pools["gold"].services.encode() == "fe:asr")


@simulated
async def test_a_second_service_comes_with_the_exceptions_of_pools_whose_own_write_fails() -> None:
    redis = FakeRedis()
    async with running(redis) as it:
        redis.refusals["replace_pool gold"] = RetryableError("refused")
        put(it, asr("fw", 6007), asr("fw-2", 6008, "silver"))
        await until(lambda: redis.nodes["a"].endpoints == "asr|fw|6007||10.0.3.7 asr|fw-2|6008||10.0.3.7")
        assert redis.exceptions["a"] == {"gold": "fw", "silver": "fw-2"}
        await until(lambda: exceptions_of(redis)["silver"] == {"a": "fw-2"})
        assert exceptions_of(redis)["gold"] == {}
        redis.refusals.clear()
        await until(lambda: exceptions_of(redis) == {"gold": {"a": "fw"}, "silver": {"a": "fw-2"}})
        put(it, asr("fw", 6007))
        await until(lambda: exceptions_of(redis) == {"gold": {}, "silver": {}})


@simulated
async def test_the_write_of_a_pool_that_takes_long_never_admits_a_service_that_came_meanwhile() -> None:
    redis = SlowRedis()
    async with running(redis) as it:
        redis.slow = "replace_pool gold"
        put(it, asr("fw", 6017), name="b")
        await asyncio.sleep(0.05)
        put(it, asr("fw", 6007), asr("fw-2", 6008, "silver"))
        await until(lambda: redis.services["gold"] == {"a": "fw"} and "fw-2" in redis.nodes["a"].endpoints)
        await asyncio.sleep(1)
        assert {services for endpoints, services in redis.seen if "fw-2" in endpoints} == {"fw"}


@simulated
async def test_the_write_of_a_node_that_takes_long_does_not_undo_what_its_pools_say_meanwhile() -> None:
    redis = SlowRedis()
    async with running(redis) as it:
        redis.slow = "replace_node a"
        put(it, asr("fw", 6007), asr("fw-2", 6008, "silver"))
        await asyncio.sleep(0.05)
        put(it, asr("fw", 6007, "silver"), asr("fw-2", 6008))
        await until(lambda: exceptions_of(redis) == {"gold": {"a": "fw-2"}, "silver": {"a": "fw"}})
        await asyncio.sleep(1)
        assert redis.services == {"gold": {"a": "fw-2"}, "silver": {"a": "fw"}}


@simulated
async def test_a_service_that_replaces_another_is_barred_from_the_pool_that_the_node_leaves() -> None:
    redis = FakeRedis()
    async with running(redis) as it:
        redis.refusals["replace_pool gold"] = RetryableError("refused")
        put(it, asr("fw-2", 6008, "silver"))
        await until(lambda: redis.nodes["a"].endpoints == "asr|fw-2|6008||10.0.3.7")
        assert redis.pools["gold"].ready == {"a"}
        assert redis.exceptions["a"] == {"gold": "-"}


@simulated
async def test_changed_attributes_alone_are_one_write_of_each_pool() -> None:
    redis = FakeRedis()
    async with running(redis) as it:
        put(it, asr("fw", 6007), asr("fw-2", 6008))
        await until(lambda: "fw-2" in redis.nodes["a"].endpoints)
        await asyncio.sleep(0.5)
        sent = len(redis.log)
        put(it, asr("fw", 6007, "silver"), asr("fw-2", 6008))
        await until(lambda: exceptions_of(redis) == {"gold": {"a": "fw-2"}, "silver": {"a": "fw"}})
        await asyncio.sleep(0.5)
        writes = sorted((verb, name) for _, verb, name in redis.log[sent:] if verb != "stamp")
        assert writes == [("replace_pool", "gold"), ("replace_pool", "silver")]


@simulated
async def test_a_silent_node_keeps_its_endpoints_for_the_brake_until_it_expires() -> None:
    redis = FakeRedis()
    async with running(redis) as it:
        set_liveness(it, Liveness.OFFLINE)
        await until(lambda: redis.nodes["a"].capabilities == ())
        assert redis.nodes["a"].endpoints == "asr|fw|6007||10.0.3.7"
        set_liveness(it, Liveness.OFFLINE, expired=True)
        await until(lambda: not redis.nodes)


@simulated
async def test_a_node_that_leaves_has_no_endpoint() -> None:
    redis = FakeRedis()
    async with running(redis) as it:
        put(it, asr("fw", 6007), leaving=True)
        await until(lambda: not redis.nodes)
        put(it, asr("fw", 6007))
        await until(lambda: "a" in redis.nodes)
        assert redis.nodes["a"].endpoints == "asr|fw|6007||10.0.3.7"
        it.delete(Kind.NODE, "a")
        await until(lambda: not redis.nodes)


@simulated
async def test_a_paused_pool_bars_the_services_that_do_not_meet_it() -> None:
    redis = FakeRedis()
    async with running(redis) as it:
        put_pool(it, "gold", paused=True)
        it.put(slice_("gold", 0, "a", version=next(_VERSIONS)))
        put(it, asr("fw-2", 6008, "silver"))
        await until(lambda: exceptions_of(redis)["gold"] == {"a": "-"})
        assert redis.pools["gold"].ready == {"a"}


@simulated
async def test_missing_rights_switch_endpoints_off_and_granted_ones_on_again(
    capsys: pytest.CaptureFixture[str],
) -> None:
    redis = FakeRedis(denied=(RIGHT,))
    async with running(redis) as it:
        assert (redis.nodes["a"].endpoints, redis.pools["gold"].services.types) == ("", ())
        assert redis.pools["gold"].ready == {"a"}
        assert REGISTRY.get_sample_value("hotpool_redis_endpoints_enabled") == 0
        assert RIGHT in capsys.readouterr().out
        redis.denied = ()
        await until(lambda: redis.nodes["a"].endpoints != "" and redis.pools["gold"].services.types == ("asr",))
        assert REGISTRY.get_sample_value("hotpool_redis_endpoints_enabled") == 1
        redis.denied, redis.fault = (RIGHT,), RetryableError("denied")
        put(it, asr("fw", 6009))
        await asyncio.sleep(1)
        redis.fault = None
        await until(lambda: redis.nodes["a"].endpoints == "" and redis.pools["gold"].services.types == ())
