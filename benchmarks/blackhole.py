"""Share of least-loaded picks that a node which fails at once attracts, in about a minute.

One Valkey on loopback. A pool of 2, 10, 64 or 200 nodes has one whose requests fail at once, so that its load is 0;
requests to the others take 2 ms. Three dispatcher processes pick the least loaded, with a reservation, and report the
outcome as they release it. The share is that of the dead node in all picks that began after the first failure in the
fleet was reported. `unreported` is the same without reports, in a pool of 10.
"""

import asyncio
import time
from multiprocessing import get_context
from typing import Any, Final

from tests.support.leadership import FixedLeadership

from hotpool.core.model import Endpoint
from hotpool.lookup import Picked, SyncLookup
from hotpool.projection.connection.async_connection import connect
from hotpool.projection.documents import NodeDocument, PoolDocument, PoolServices, encode_endpoints
from hotpool.projection.writer import RedisWriter
from localfleet.redis_server import RedisServer

SIZES: Final = (2, 10, 64, 200)
DISPATCHERS: Final = 3
SECONDS: Final = 10.0
REQUEST_SECONDS: Final = 0.002
DEAD: Final = "edge-000"


async def _project(url: str, size: int) -> None:
    client = connect(url, timeout=30)
    await client.execute_command("FLUSHALL")
    writer = RedisWriter(client, FixedLeadership(), namespace="speech")
    await writer.claim(1)
    names = frozenset(f"edge-{number:03}" for number in range(size))
    nobody: frozenset[str] = frozenset()
    await writer.replace_pool(
        PoolDocument("asr", "u", None, None, names, nobody, nobody, services=PoolServices(("asr",)))
    )
    service = encode_endpoints([Endpoint("whisper", "asr", 6000, ("10.0.3.7",), ())])
    for name in names:
        await writer.replace_node(NodeDocument(name, (), service))
    await writer.stamp(complete=True)
    await client.aclose()


def _dispatch(url: str, number: int, ends: float, results: Any, *, reports: bool) -> None:
    """Send requests until `ends`. Put the time of each pick, whether it was the dead node, and when it was reported."""
    picks: list[tuple[float, bool, float]] = []
    with SyncLookup.from_url(url, namespace="speech", source=f"dispatcher-{number}") as lookup:
        while (begun := time.monotonic()) < ends:
            picked = lookup.pick("asr", strategy="least-loaded", reserve=30)
            if not isinstance(picked, Picked) or picked.reservation is None:
                raise TypeError(f"no node: {picked}")
            dead = picked.node == DEAD
            if not dead:
                time.sleep(REQUEST_SECONDS)
            if reports:
                lookup.release(picked.reservation, failed="unreachable" if dead else False)
            else:
                lookup.release(picked.reservation)
            picks.append((begun, dead, time.monotonic()))
    results.put(picks)


def _share(url: str, size: int, *, reports: bool) -> float:
    asyncio.run(_project(url, size))
    context = get_context("spawn")
    results, ends = context.Queue(), time.monotonic() + SECONDS
    children = [
        context.Process(target=_dispatch, args=(url, number, ends, results), kwargs={"reports": reports})
        for number in range(DISPATCHERS)
    ]
    for child in children:
        child.start()
    picks: list[tuple[float, bool, float]] = [pick for _ in children for pick in results.get(timeout=SECONDS + 60)]
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
