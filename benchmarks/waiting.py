"""Picks that wait: the time from a release to the waiter's answer, and what a thousand waiters cost, in half a minute.

One Valkey on loopback, a pool of one node with one slot. One client waits for the slot that another one holds and
releases, both in one event loop. Then a thousand picks wait for 10 s in a process of their own, half of them for a slot
and half for a pool that does not exist. Their figure is the CPU time of the process over the time, 100 for one core.
"""

import asyncio
import multiprocessing
import statistics
import time
from typing import Any, Final

from tests.support.leadership import FixedLeadership

from hotpool.core.capacity import NodeLimits, ReadyService
from hotpool.core.model import Endpoint
from hotpool.lookup import Lookup, Picked
from hotpool.projection.connection.async_connection import connect
from hotpool.projection.documents import NodeDocument, PoolDocument, PoolServices, encode_endpoints
from hotpool.projection.writer import RedisWriter
from localfleet.redis_server import RedisServer

ROUNDS: Final = 300
WAITERS: Final = 1_000
SECONDS: Final = 10.0
POOL: Final = "zh-en"
NAMESPACE: Final = "speech"


async def _project(url: str) -> None:
    client = connect(url)
    writer = RedisWriter(client, FixedLeadership(), namespace=NAMESPACE)
    await writer.claim(1)
    limits = NodeLimits({ReadyService("asr", "fw"): 1}, {})
    place = Endpoint("fw", "asr", 6007, ("10.0.3.7",))
    await writer.replace_node(NodeDocument("edge-1", (), encode_endpoints([place], limits)))
    members = frozenset({"edge-1"}), frozenset[str](), frozenset[str]()
    await writer.replace_pool(PoolDocument(POOL, "u", None, None, *members, services=PoolServices(("asr",))))
    await writer.stamp(complete=True)
    await client.aclose()


async def _reserve(lookup: Lookup, **options: Any) -> Picked:
    found = await lookup.pick(POOL, reserve=600, **options)
    if not isinstance(found, Picked) or not found.reservation:
        raise TypeError(f"no slot: {found}")
    return found


async def _wake_ups(url: str) -> list[float]:
    """Return the times of all rounds in ms."""
    times: list[float] = []
    holder, waiter = (Lookup.from_url(url, namespace=NAMESPACE) for _ in range(2))
    async with holder, waiter:
        picked = await _reserve(holder)
        for _ in range(ROUNDS):
            pick = asyncio.create_task(_reserve(waiter, wait=30))
            await asyncio.sleep(0.03)  # the pick waits
            begun = time.perf_counter()
            if not picked.reservation or not await holder.release(picked.reservation):
                raise TypeError(f"not reserved: {picked}")
            picked = await pick
            times.append(1000 * (time.perf_counter() - begun))
    return times


async def _wait(url: str) -> float:
    async with Lookup.from_url(url, namespace=NAMESPACE) as lookup:
        await _reserve(lookup)
        pools = [POOL, "missing"] * (WAITERS // 2)
        picks = [asyncio.create_task(lookup.pick(pool, reserve=600, wait=600)) for pool in pools]
        await asyncio.sleep(2)
        cpu, begun = time.process_time(), time.perf_counter()
        await asyncio.sleep(SECONDS)
        share = 100 * (time.process_time() - cpu) / (time.perf_counter() - begun)
        if any(pick.done() for pick in picks):
            raise TypeError("a pick did not wait")
        for pick in picks:
            pick.cancel()
        await asyncio.gather(*picks, return_exceptions=True)
    return share


def _run(url: str, result: Any) -> None:
    result.send(asyncio.run(_wait(url)))


def measure() -> dict[str, float]:
    """Return all figures."""
    with RedisServer() as server:
        asyncio.run(_project(server.url))
        times = sorted(asyncio.run(_wake_ups(server.url)))
    with RedisServer() as server:
        asyncio.run(_project(server.url))
        mine, theirs = multiprocessing.Pipe(duplex=False)
        process = multiprocessing.get_context("spawn").Process(target=_run, args=(server.url, theirs))
        process.start()
        share = mine.recv()
        process.join()
    percentiles = statistics.quantiles(times, n=100)
    return {
        "wait_wakeup_ms_p50": round(percentiles[49], 3),
        "wait_wakeup_ms_p99": round(percentiles[98], 3),
        "waiters_1000_cpu_percent": round(share, 2),
    }
