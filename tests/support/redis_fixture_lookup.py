"""What the tests of the look-up share: pools to project, a writer that may, and what an answer should have been."""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from typing import TYPE_CHECKING

from hotpool.lookup import Lookup, NoMember, Picked, Reason, Reservation
from hotpool.projection.documents import PoolDocument
from hotpool.projection.keys import FleetKeys, score
from hotpool.projection.writer import RedisWriter

if TYPE_CHECKING:
    from collections.abc import Collection

    from hotpool.projection.connection.async_connection import Client

KEYS = FleetKeys("hotpool", "speech")
LOAD, ENTRIES, EXPIRIES = KEYS.load
RING = 1 << 52
TRANSITION = '{"at":"2026-11-27T00:00:00Z","from":null,"to":"Live","gained":["asr"],"lost":{}}'


def names(count: int, word: str = "edge") -> frozenset[str]:
    return frozenset(f"{word}-{number}" for number in range(count))


def pool(
    ready: Collection[str] = (), suspect: Collection[str] = (), draining: Collection[str] = (), *, name: str = "zh-en"
) -> PoolDocument:
    return PoolDocument(name, "u1", "speech", name, frozenset(ready), frozenset(suspect), frozenset(draining))


async def claimed(client: Client, term: int = 3) -> RedisWriter:
    """A writer whose term the server knows."""
    made = RedisWriter(client, namespace="speech", leader=lambda: True)
    assert await made.claim(term) == term
    return made


def picked(answer: Picked | NoMember) -> Picked:
    assert isinstance(answer, Picked), answer
    return answer


def node_of(answer: Picked | NoMember) -> str:
    return picked(answer).node


def reason_of(answer: Picked | NoMember) -> Reason:
    assert isinstance(answer, NoMember), answer
    return answer.reason


def chi_square(counts: Collection[int]) -> float:
    """How far counts are from all being equal."""
    expected = sum(counts) / len(counts)
    return sum((count - expected) ** 2 / expected for count in counts)


async def loads(client: Client) -> dict[str, float]:
    """What the server counts."""
    flat = await client.execute_command("ZRANGE", LOAD, 0, -1, "WITHSCORES")
    return {node.decode(): float(load) for node, load in zip(flat[::2], flat[1::2], strict=True)}


async def counted(client: Client) -> tuple[int, int, int]:
    """Sizes of the three keys."""
    words = (("ZCARD", LOAD), ("HLEN", ENTRIES), ("ZCARD", EXPIRIES))
    found = [int(await client.execute_command(*command)) for command in words]
    return found[0], found[1], found[2]


async def reserved(lookup: Lookup, seconds: float = 60) -> Reservation:
    made = picked(await lookup.pick("zh-en", strategy="least-loaded", reserve=seconds)).reservation
    assert made is not None
    return made


class Ring:
    """The recipe of docs/design/0004 in plain Python."""

    def __init__(self, nodes: Collection[str]) -> None:
        self._places = sorted((score(node), node) for node in nodes)

    def node(self, key: str) -> str:
        digest = hashlib.sha1(key.encode(), usedforsecurity=False).hexdigest()
        first, step = int(digest[:13], 16), int(digest[13:26], 16)
        nearest = min((self._after((first + turn * step) % RING) for turn in range(21)), key=lambda found: found[0])
        return nearest[1]

    def _after(self, probe: int) -> tuple[int, str]:
        place, node = self._places[bisect_left(self._places, (probe, "")) % len(self._places)]
        return (place - probe) % RING, node
