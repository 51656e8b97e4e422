"""Speed of a pick, compared with a bare SRANDMEMBER and with the predecessor's script.

One Valkey on loopback and one blocking client that picks sequentially, so a rate is one over the mean time of a pick,
client and network included. All clients have the settings of the look-up, time-outs included. In each round every
variant has a batch in turn. The floor is SRANDMEMBER of a set with the same members: one command, no exclusion, no
version, no age. The predecessor is one script, written from its description: count the shards one by one, draw a
non-empty one, draw a member of it, check that the node is alive. Its shards hold 100; `shards_1000` is 10,000 members
in 1,000 of them. Server times are from Redis, for a whole call.
"""

import asyncio
import secrets
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from redis import Redis
from tests.support.leadership import FixedLeadership

from hotpool.lookup import Picked, SyncLookup
from hotpool.projection.connection.async_connection import connect
from hotpool.projection.connection.config import TIMEOUT_SECONDS
from hotpool.projection.documents import PoolDocument
from hotpool.projection.writer import RedisWriter
from localfleet.metrics_reader import percentiles, spread
from localfleet.redis_server import RedisServer

SIZES: Final = (10, 1_000, 10_000)
ROUNDS: Final = 15
BATCH: Final = 200
SHARD: Final = 100
MANY_SHARDS: Final = 1_000
PREDECESSOR: Final = """
local shards = tonumber(ARGV[1])
for _ = 1, 64 do
  local filled = {}
  for shard = 0, shards - 1 do
    if redis.call('SCARD', ARGV[2] .. shard .. ':nodes') > 0 then table.insert(filled, shard) end
  end
  if #filled == 0 then return nil end
  local node = redis.call('SRANDMEMBER', ARGV[2] .. filled[math.random(#filled)] .. ':nodes')
  if node and redis.call('EXISTS', 'old:node:' .. node) == 1 then return node end
end
return nil
"""
Pick = Callable[[], Any]


def _names(size: int) -> list[str]:
    return [f"edge-{number:05}" for number in range(size)]


async def _project(url: str, lengths: tuple[int, ...]) -> None:
    client = connect(url, timeout=30)
    writer = RedisWriter(client, FixedLeadership(), namespace="speech")
    await writer.claim(1)
    for size in lengths:
        members = frozenset(_names(size))
        await writer.replace_pool(PoolDocument(f"of-{size}", "u", None, None, members, frozenset(), frozenset()))
    await writer.stamp(complete=True)
    await client.aclose()


def _fill(redis: Any, size: int, shards: int) -> str:
    """Store the members for the floor and the predecessor; return the prefix of the predecessor's keys."""
    names = _names(size)
    base = f"old:pool:{size}:{shards}:"
    with redis.pipeline(transaction=False) as pipe:
        pipe.sadd(f"floor:{size}", *names)
        for number, name in enumerate(names):
            pipe.sadd(f"{base}{number % shards}:nodes", name)
            pipe.set(f"old:node:{name}", "1")
        pipe.execute()
    return base


def _variants(redis: Any, lookup: SyncLookup) -> dict[str, Pick]:
    script = redis.script_load(PREDECESSOR)
    found: dict[str, Pick] = {}
    for size in SIZES:
        pool, floor = f"of-{size}", f"floor:{size}"
        found[f"floor_{size}"] = partial(redis.srandmember, floor)
        found[f"uniform_{size}"] = partial(lookup.pick, pool)
        found[f"least_loaded_{size}"] = partial(lookup.pick, pool, strategy="least-loaded")
        found[f"affinity_{size}"] = partial(_by_some_key, lookup, pool)
        found[f"reserve_{size}"] = partial(lookup.pick, pool, strategy="least-loaded", reserve=1)
        shards = -(-size // SHARD)
        base = _fill(redis, size, shards)
        found[f"predecessor_{size}"] = partial(redis.evalsha, script, 0, shards, base)
    base = _fill(redis, SIZES[-1], MANY_SHARDS)
    found["predecessor_shards_1000"] = partial(redis.evalsha, script, 0, MANY_SHARDS, base)
    return found


def _by_some_key(lookup: SyncLookup, pool: str) -> Any:
    return lookup.pick(pool, key=secrets.token_hex(8))


def _batch(pick: Pick) -> list[float]:
    """Return the milliseconds of each pick. Raises TypeError if one finds no node."""
    took = []
    for _ in range(BATCH):
        begun = time.perf_counter()
        answer = pick()
        took.append((time.perf_counter() - begun) * 1000)
        if not isinstance(answer, Picked | bytes):
            raise TypeError(f"no node: {answer}")
    return took


def _server_us(redis: Any, pick: Pick) -> float:
    redis.config_resetstat()
    _batch(pick)
    calls = {"cmdstat_fcall_ro", "cmdstat_fcall", "cmdstat_evalsha"}
    stats = redis.info("commandstats")
    whole = [stats[name] for name in calls & stats.keys()] or [stats["cmdstat_srandmember"]]
    return round(float(whole[0]["usec_per_call"]), 2)


def _connected(url: str) -> Redis:
    return Redis.from_url(url, socket_timeout=TIMEOUT_SECONDS, socket_connect_timeout=TIMEOUT_SECONDS)


def measure() -> dict[str, float]:
    """Return all figures; ratios are rates over rates of one round."""
    with RedisServer() as server, _connected(server.url) as redis:
        asyncio.run(_project(server.url, SIZES))
        with SyncLookup.from_url(server.url, namespace="speech") as lookup:
            variants = _variants(redis, lookup)
            times: dict[str, list[list[float]]] = defaultdict(list)
            for pick in variants.values():
                _batch(pick)
            for number in range(ROUNDS):
                sys.stderr.write(f"lookup: round {number + 1} of {ROUNDS}\n")
                for name, pick in variants.items():
                    times[name].append(_batch(pick))
            server_us = {name: _server_us(redis, pick) for name, pick in variants.items()}
    return _figures(times, server_us)


def _figures(times: dict[str, list[list[float]]], server_us: dict[str, float]) -> dict[str, float]:
    figures: dict[str, float] = {}
    rates = {name: [1000 * BATCH / sum(batch) for batch in batches] for name, batches in times.items()}
    for name, batches in times.items():
        figures |= spread(f"pick_{name}_per_second", rates[name])
        figures |= percentiles(f"pick_{name}_ms", [took for batch in batches for took in batch])
        figures[f"pick_{name}_server_us"] = server_us[name]
    for size in SIZES:
        for strategy in ("uniform", "least_loaded", "affinity", "reserve"):
            mine = rates[f"{strategy}_{size}"]
            figures |= _ratio(f"pick_ratio_to_floor_{strategy}_{size}", mine, rates[f"floor_{size}"])
        old = rates[f"predecessor_{size}"]
        figures |= _ratio(f"pick_ratio_to_predecessor_{size}", rates[f"uniform_{size}"], old)
    largest = rates[f"uniform_{SIZES[-1]}"]
    figures |= _ratio("pick_ratio_to_floor", largest, rates[f"floor_{SIZES[-1]}"])
    return figures | _ratio("pick_ratio_to_predecessor", largest, rates["predecessor_shards_1000"])


def _ratio(name: str, rates: list[float], others: list[float]) -> dict[str, float]:
    return spread(name, [rate / other for rate, other in zip(rates, others, strict=True)])
