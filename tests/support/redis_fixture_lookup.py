"""Fixtures for tests of the look-up: pools, a writer with a claimed term, and expected results."""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from dataclasses import replace
from typing import TYPE_CHECKING

from tests.support.leadership import FixedLeadership

from hotpool.lookup import Lookup, NoMember, Picked, Reason, Reservation
from hotpool.projection.documents import NodeDocument, PoolDocument, PoolServices
from hotpool.projection.drift_check import DriftReport
from hotpool.projection.keys import FleetKeys, score
from hotpool.projection.writer import RedisWriter

if TYPE_CHECKING:
    from collections.abc import Collection

    from hotpool.projection.connection.async_connection import Client

KEYS = FleetKeys("hotpool", "speech")
LOAD, ENTRIES, EXPIRIES = KEYS.load
RING = 1 << 52
DOCUMENTED_READY = ["edge-017", "edge-021", "edge-042"]
_NO_NAMES: frozenset[str] = frozenset()
NO_DRIFT = DriftReport(True, _NO_NAMES, _NO_NAMES, _NO_NAMES, _NO_NAMES, _NO_NAMES)
TRANSITION = '{"at":"2026-11-27T00:00:00Z","from":null,"to":"Live","gained":["asr"],"lost":{}}'


def names(count: int, word: str = "edge") -> frozenset[str]:
    return frozenset(f"{word}-{number}" for number in range(count))


def pool(
    ready: Collection[str] = (), suspect: Collection[str] = (), draining: Collection[str] = (), *, name: str = "zh-en"
) -> PoolDocument:
    return PoolDocument(name, "u1", "speech", name, frozenset(ready), frozenset(suspect), frozenset(draining))


async def write_documented_fleet(writer: RedisWriter) -> None:
    """Write pool `zh-en` of docs/reference/redis.md: its Ready nodes have an asr service each."""
    members = pool(DOCUMENTED_READY, ["edge-033"])
    await writer.replace_pool(replace(members, services=PoolServices(("asr",))))
    for name in DOCUMENTED_READY:
        endpoint = f"asr|faster-whisper|6007|http|10.0.3.{int(name[-3:])}"
        await writer.replace_node(NodeDocument(name, (("asr", True, None, ("faster-whisper",)),), endpoint))
    await writer.append_history("edge-017", [TRANSITION])
    await writer.stamp(complete=True)


async def claimed_writer(client: Client, term: int = 3) -> RedisWriter:
    """Return a writer that has claimed `term`."""
    writer = RedisWriter(client, FixedLeadership(), namespace="speech")
    assert await writer.claim(term) == term
    return writer


def expect_picked(answer: Picked | NoMember) -> Picked:
    assert isinstance(answer, Picked), answer
    return answer


def node_of(answer: Picked | NoMember) -> str:
    return expect_picked(answer).node


def reason_of(answer: Picked | NoMember) -> Reason:
    assert isinstance(answer, NoMember), answer
    return answer.reason


def chi_square(counts: Collection[int]) -> float:
    """Return the chi-square statistic of counts against equal counts."""
    expected = sum(counts) / len(counts)
    return sum((count - expected) ** 2 / expected for count in counts)


async def node_loads(client: Client) -> dict[str, float]:
    """Return the stored load of each node, without the mark of the ledger (lua/drain.lua)."""
    flat = await client.execute_command("ZRANGE", LOAD, 0, -1, "WITHSCORES")
    loads = {node.decode(): float(load) for node, load in zip(flat[::2], flat[1::2], strict=True)}
    return {node: load for node, load in loads.items() if not node.startswith(".")}


async def load_key_sizes(client: Client) -> tuple[int, int, int]:
    """Return the sizes of the three load keys."""
    commands = (("ZCARD", LOAD), ("HLEN", ENTRIES), ("ZCARD", EXPIRIES))
    sizes = [int(await client.execute_command(*command)) for command in commands]
    return sizes[0], sizes[1], sizes[2]


async def reserve(lookup: Lookup, seconds: float = 60) -> Reservation:
    reservation = expect_picked(await lookup.pick("zh-en", strategy="least-loaded", reserve=seconds)).reservation
    assert reservation is not None
    return reservation


class Ring:
    """The algorithm of docs/design/0004 in Python."""

    def __init__(self, nodes: Collection[str]) -> None:
        self._positions = sorted((score(node), node) for node in nodes)

    def node(self, key: str) -> str:
        digest = hashlib.sha1(key.encode(), usedforsecurity=False).hexdigest()
        first, step = int(digest[:13], 16), int(digest[13:26], 16)
        nearest = min(
            (self._distance_and_node((first + number * step) % RING) for number in range(21)), key=lambda item: item[0]
        )
        return nearest[1]

    def _distance_and_node(self, probe: int) -> tuple[int, str]:
        position, node = self._positions[bisect_left(self._positions, (probe, "")) % len(self._positions)]
        return (position - probe) % RING, node
