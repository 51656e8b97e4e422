"""Cost of reservations and refusals in Redis, against a plain pick of the same pool, in a few seconds.

One Valkey on loopback holds three fleets of one pool of 1,000 nodes with three services each: without limits, with
limits that leave room, and with every slot taken. A figure is the time that Redis spends on a call (INFO commandstats)
over its time for a pick of the fleet without limits, of one round.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from redis import Redis
from tests.support.leadership import FixedLeadership

from hotpool.core.capacity import NodeLimits, ReadyService
from hotpool.core.model import Endpoint
from hotpool.lookup import NoMember, Picked, Reservation, SyncLookup
from hotpool.projection.connection.async_connection import connect
from hotpool.projection.documents import NodeDocument, PoolDocument, PoolServices, encode_endpoints
from hotpool.projection.writer import RedisWriter
from localfleet.metrics_reader import spread
from localfleet.redis_server import RedisServer

SIZE: Final = 1_000
ROUNDS: Final = 20
BATCH: Final = 200
TYPES: Final = ("asr", "nmt", "tts")
POOL: Final = "zh-en"
LIMITS: Final[dict[str, int | None]] = {"free": None, "limited": 8, "full": 1}


async def _project(url: str) -> None:
    client = connect(url, timeout=30)
    names = [f"edge-{number:04}" for number in range(SIZE)]
    services = [Endpoint(f"{type_}-service", type_, 6000, ("10.0.3.7", "fd00::7"), (), "http") for type_ in TYPES]
    for namespace, limit in LIMITS.items():
        limits = NodeLimits({ReadyService(item.type, item.service): limit for item in services}, {}) if limit else None
        writer = RedisWriter(client, FixedLeadership(), namespace=namespace)
        await writer.claim(1)
        members = frozenset(names), frozenset[str](), frozenset[str]()
        await writer.replace_pool(PoolDocument(POOL, "u", None, None, *members, services=PoolServices(TYPES)))
        for name in names:
            await writer.replace_node(NodeDocument(name, (), encode_endpoints(services, limits)))
        await writer.stamp(complete=True)
    await client.aclose()


def _microseconds(redis: Redis, call: Callable[[], Any], expected: type) -> tuple[float, list[Any]]:
    """Return the time of one call in Redis, and the answers of a batch. Raises TypeError for an unexpected answer."""
    redis.config_resetstat()
    answers = [call() for _ in range(BATCH)]
    if not all(isinstance(answer, expected) for answer in answers):
        raise TypeError(f"unexpected: {answers[-1]}")
    stats: Any = redis.info("commandstats")
    calls = [stats[name] for name in ("cmdstat_fcall", "cmdstat_fcall_ro") if name in stats]
    return sum(item["usec"] for item in calls) / sum(item["calls"] for item in calls), answers


def _round(redis: Redis, fleets: dict[str, SyncLookup]) -> dict[str, float]:
    free, limited, full = (fleets[name] for name in LIMITS)
    reserve: dict[str, Any] = {"reserve": 60}
    least_loaded = {**reserve, "strategy": "least-loaded"}
    found: dict[str, float] = {}
    for name, call in {
        "pick": partial(free.pick, POOL),
        "pick_limited": partial(limited.pick, POOL),
        "pick_least_loaded": partial(free.pick, POOL, strategy="least-loaded"),
        "pick_limited_least_loaded": partial(limited.pick, POOL, strategy="least-loaded"),
        "reserve_free": partial(free.pick, POOL, **reserve),
        "reserve": partial(limited.pick, POOL, **reserve),
        "reserve_least_loaded": partial(limited.pick, POOL, **least_loaded),
    }.items():
        found[name], answers = _microseconds(redis, call, Picked)
        for lookup in (free, limited) if name.startswith("reserve") else ():
            _release(lookup, answers)
    found["full"], _ = _microseconds(redis, partial(full.pick, POOL, **reserve), NoMember)
    return found


def _release(lookup: SyncLookup, answers: list[Any]) -> None:
    for answer in answers:
        if isinstance(answer.reservation, Reservation):
            lookup.release(answer.reservation)


def measure() -> dict[str, float]:
    """Return all figures: ratios of times in Redis, where less is better."""
    with RedisServer() as server, Redis.from_url(server.url) as redis:
        asyncio.run(_project(server.url))
        fleets = {name: SyncLookup.from_url(server.url, namespace=name) for name in LIMITS}
        for _ in range(SIZE):
            if not isinstance(fleets["full"].pick(POOL, reserve=86_400), Picked):
                raise TypeError("a pool with room refused a reservation")
        rounds = [_round(redis, fleets) for _ in range(ROUNDS + 1)][1:]
        for lookup in fleets.values():
            lookup.close()
    figures = spread("pick_microseconds_in_redis", [costs["pick"] for costs in rounds])
    for name in rounds[0].keys() - {"pick", "pick_least_loaded", "pick_limited_least_loaded"}:
        figures |= spread(f"{name}_ratio_to_pick", [costs[name] / costs["pick"] for costs in rounds])
    ratio = [costs["pick_limited_least_loaded"] / costs["pick_least_loaded"] for costs in rounds]
    return figures | spread("pick_limited_least_loaded_ratio_to_unlimited", ratio)
