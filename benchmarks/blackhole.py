"""Share of least-loaded picks that a node which fails at once attracts, in about a minute.

One Valkey on loopback. A pool of 2, 10, 64 or 200 nodes has one whose requests fail at once, so that its load is 0.
Requests to the others take 0.2 s (1 s in the largest pool). Three dispatcher processes have as many requests under way
as the pool has nodes, each with a reservation, and report the outcome with its release. The share is that of the dead
node in all picks that began after the first failure in the fleet was reported. `unreported` is the same without
reports, in a pool of 10.
"""

import asyncio
import time
from multiprocessing import get_context
from typing import Any, Final, TypeAlias

from tests.support.leadership import FixedLeadership

from hotpool.core.model import Endpoint
from hotpool.lookup import Lookup, Picked
from hotpool.projection.connection.async_connection import connect
from hotpool.projection.documents import NodeDocument, PoolDocument, PoolServices, encode_endpoints
from hotpool.projection.writer import RedisWriter
from localfleet.redis_server import RedisServer

SIZES: Final = (2, 10, 64, 200)
DISPATCHERS: Final = 3
SECONDS: Final = 8.0
REQUEST_SECONDS: Final = 0.2
REQUESTS_PER_SECOND: Final = 200.0
"""Most of one dispatcher, so that the processors are not the limit."""
DEAD: Final = "edge-000"
_Pick: TypeAlias = tuple[float, bool, float]
"""Time of the pick, True if it is the dead node, and time at which its outcome was reported."""


async def _project(url: str, size: int) -> None:
    client = connect(url, timeout=30)
    await client.execute_command("FLUSHALL")
    writer = RedisWriter(client, FixedLeadership(), namespace="speech")
    await writer.claim(1)
    names = frozenset(f"edge-{number:03}" for number in range(size))
    none: frozenset[str] = frozenset()
    await writer.replace_pool(PoolDocument("asr", "u", None, None, names, none, none, services=PoolServices(("asr",))))
    service = encode_endpoints([Endpoint("whisper", "asr", 6000, ("10.0.3.7",), ())])
    for name in names:
        await writer.replace_node(NodeDocument(name, (), service))
    await writer.stamp(complete=True)
    await client.aclose()


async def _request(lookup: Lookup, seconds: float, *, reports: bool) -> _Pick:
    begun = time.monotonic()
    picked = await lookup.pick("asr", strategy="least-loaded", reserve=30)
    if not isinstance(picked, Picked) or picked.reservation is None:
        raise TypeError(f"no node: {picked}")
    dead = picked.node == DEAD
    if not dead:
        await asyncio.sleep(seconds)
    await lookup.release(picked.reservation, failed=("unreachable" if dead else False) if reports else None)
    return begun, dead, time.monotonic()


async def _requests(url: str, number: int, size: int, ends: float, *, reports: bool) -> list[_Pick]:
    seconds = max(REQUEST_SECONDS, size / REQUESTS_PER_SECOND)
    picks: list[_Pick] = []

    async def repeat(lookup: Lookup) -> None:
        while time.monotonic() < ends:
            picks.append(await _request(lookup, seconds, reports=reports))

    async with Lookup.from_url(url, namespace="speech", source=f"dispatcher-{number}", timeout=30) as lookup:
        await asyncio.gather(*(repeat(lookup) for _ in range(size)))
    return picks


def _dispatch(url: str, number: int, size: int, start: Any, results: Any, *, reports: bool) -> None:
    """Begin when all dispatchers run."""
    start.wait(timeout=60)
    ends = time.monotonic() + SECONDS
    results.put(asyncio.run(_requests(url, number, size, ends, reports=reports)))


def _share(url: str, size: int, *, reports: bool) -> float:
    asyncio.run(_project(url, size))
    context = get_context("spawn")
    results, start = context.Queue(), context.Barrier(DISPATCHERS)
    children = [
        context.Process(target=_dispatch, args=(url, number, size, start, results), kwargs={"reports": reports})
        for number in range(DISPATCHERS)
    ]
    for child in children:
        child.start()
    picks: list[_Pick] = [pick for _ in children for pick in results.get(timeout=SECONDS + 60)]
    for child in children:
        child.join()
    first = min(reported for _, dead, reported in picks if dead)
    after = [dead for begun, dead, _ in picks if begun > first]
    return sum(after) / len(after)


def measure() -> dict[str, float]:
    """Return the share for each size, and the largest."""
    with RedisServer() as server:
        shares = {f"blackhole_share_least_loaded_{size}": _share(server.url, size, reports=True) for size in SIZES}
        unreported = _share(server.url, 10, reports=False)
    largest = {"blackhole_share_least_loaded": max(shares.values())}
    return shares | largest | {"blackhole_share_unreported_10": unreported}
