"""Cost of endpoints and of ejections in a pick, and of the library beside the former one, in a few seconds.

One Valkey on loopback holds four fleets of one pool of 1,000 nodes. The nodes of three have three services with
endpoints: in `endpoints` and `ejected` all at the same addresses, in `addresses` each node at its own. In `ejected` ten
nodes are ejected. The nodes of `names` have no endpoints. One blocking client picks sequentially. In each round every
variant has a short batch in turn, so a ratio of two batches is of one moment. `former` sends the words of the former
library's picks; the parser of the present client suits its shorter replies, too.
"""

import asyncio
import random
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from tests.support.leadership import FixedLeadership

from hotpool.core.model import Endpoint
from hotpool.lookup import Picked, SyncLookup
from hotpool.projection.connection.async_connection import connect
from hotpool.projection.documents import NodeDocument, PoolDocument, PoolServices, encode_endpoints
from hotpool.projection.functions import FORMER_LIBRARY, CommandArgs
from hotpool.projection.lookup.wait_protocol import WaitProtocol
from hotpool.projection.writer import RedisWriter
from localfleet.metrics_reader import spread
from localfleet.redis_server import RedisServer

SIZE: Final = 1_000
ROUNDS: Final = 200
BATCH: Final = 20
EJECTED: Final = 10
WARM_UP: Final = 5_000
"""Picks before the first round, after which both the client and the server know nearly every node."""
TYPES: Final = ("asr", "nmt", "tts")
POOL: Final = "zh-en"


class _FormerProtocol(WaitProtocol):
    """Picks of the former library."""

    def _build_call(self, name: str, pool: str, loads: int, denied: frozenset[str], limited: bool) -> CommandArgs:  # noqa: ARG002, FBT001
        facts, ready, suspect, _ = self._keys.pool(pool)
        keys = [key.encode() for key in (self._keys.meta, facts, ready, suspect, *self._keys.load[:loads])]
        return ("FCALL_RO", f"{FORMER_LIBRARY}_{name}", len(keys), *keys)


def _services(number: int) -> list[Endpoint]:
    addresses = f"10.0.{number // 250}.{number % 250}", f"fd00::{number:x}"
    return [Endpoint(f"{type_}-service", type_, 6000, addresses, (), "http") for type_ in TYPES]


async def _project(url: str) -> None:
    client = connect(url, timeout=30)
    names = [f"edge-{number:04}" for number in range(SIZE)]
    for namespace in ("names", "endpoints", "addresses", "ejected"):
        writer = RedisWriter(client, FixedLeadership(), namespace=namespace)
        await writer.claim(1)
        members = frozenset(names), frozenset[str](), frozenset[str]()
        await writer.replace_pool(PoolDocument(POOL, "u", None, None, *members, services=PoolServices(TYPES)))
        for number, name in enumerate(names if namespace != "names" else ()):
            own = number if namespace == "addresses" else 7
            await writer.replace_node(NodeDocument(name, (), encode_endpoints(_services(own))))
        await writer.stamp(complete=True)
    await client.aclose()


def _rate(pick: Callable[[], Any]) -> float:
    """Return picks per second of one batch. Raises TypeError if one finds no node."""
    begun = time.perf_counter()
    answers = [pick() for _ in range(BATCH)]
    took = time.perf_counter() - begun
    if not all(isinstance(answer, Picked) for answer in answers):
        raise TypeError(f"no node: {answers}")
    return BATCH / took


def _round(variants: Mapping[str, Callable[[], Any]], *, reverse: bool) -> dict[str, float]:
    """Return the rate of each variant. The order alternates, so that a change of the machine's speed favours none."""
    return {name: _rate(variants[name]) for name in (reversed(list(variants)) if reverse else variants)}


def measure() -> dict[str, float]:
    """Return all figures; ratios are rates over rates of one round."""
    with RedisServer() as server:
        asyncio.run(_project(server.url))
        namespaces = ("names", "endpoints", "addresses", "endpoints", "ejected")
        opened = [SyncLookup.from_url(server.url, namespace=name) for name in namespaces]
        names, endpoints, addresses, former, ejected = opened
        for _ in range(EJECTED):
            picked = ejected.pick(POOL)
            if not isinstance(picked, Picked) or ejected.report_failure(picked) != "Ejected":
                raise TypeError(f"not ejected: {picked}")
        former._protocol = _FormerProtocol(namespace="endpoints", prefix="hotpool", chance=random.random)  # noqa: SLF001
        variants = {
            "former": partial(former.pick, POOL),
            "name_only": partial(names.pick, POOL),
            "plain": partial(endpoints.pick, POOL),
            "own_addresses": partial(addresses.pick, POOL),
            "one_type": partial(endpoints.pick, POOL, types=["asr"]),
            "endpoint": partial(endpoints.pick, POOL, endpoint=True),
            "ejected": partial(ejected.pick, POOL),
            "former_least_loaded": partial(former.pick, POOL, strategy="least-loaded"),
            "least_loaded": partial(endpoints.pick, POOL, strategy="least-loaded"),
        }
        for _ in range(WARM_UP):
            addresses.pick(POOL)
        rates = [_round(variants, reverse=bool(number % 2)) for number in range(ROUNDS + 1)][1:]
        for lookup in opened:
            lookup.close()
    return _figures(rates)


def _figures(rates: list[dict[str, float]]) -> dict[str, float]:
    figures: dict[str, float] = {}
    for name in rates[0]:
        figures |= spread(f"pick_{name}_per_second", [batch[name] for batch in rates])
    ratios = {
        "pick_endpoint_ratio_to_name_only": ("one_type", "name_only"),
        "pick_all_endpoints_ratio_to_name_only": ("endpoint", "name_only"),
        "pick_endpoint_ratio_to_plain": ("one_type", "plain"),
        "pick_ejected_ratio_to_plain": ("ejected", "plain"),
        "pick_ratio_to_former_library": ("plain", "former"),
        "pick_own_addresses_ratio_to_former_library": ("own_addresses", "former"),
        "pick_least_loaded_ratio_to_former_library": ("least_loaded", "former_least_loaded"),
        "pick_name_only_ratio_to_former_library": ("name_only", "former"),
    }
    for name, (mine, other) in ratios.items():
        figures |= spread(name, [batch[mine] / batch[other] for batch in rates])
    return figures
