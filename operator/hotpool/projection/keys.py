"""Names of the Redis keys of one fleet, and the place of a node in a pool's ordered sets.

Pure: it must not import redis or do I/O. Every key holds the same hash tag, so all of a fleet lies in one slot of a
Redis Cluster (E4: the limit is one shard per fleet).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

STATES = ("ready", "suspect", "draining")
DEFAULT_PREFIX = "hotpool"

_OFFSET = 0xCBF29CE484222325
_PRIME = 0x100000001B3
_WORD = (1 << 64) - 1
_SCORE_BITS = 52


def fnv1a64(data: bytes) -> int:
    """Return the FNV-1a hash of data, 64 bits unsigned."""
    value = _OFFSET
    for byte in data:
        value = ((value ^ byte) * _PRIME) & _WORD
    return value


@lru_cache(maxsize=1 << 16)
def score(node: str) -> int:
    """Return a node's place on the ring: 52 bits, exact in the double that a sorted set keeps.

    FNV-1a-64 of the name, mixed (without it edge-001 to edge-009 lie side by side), its upper half folded in.
    Never change it: the ring is kept in Redis, and an affinity pick must not move.
    """
    value = fnv1a64(node.encode())
    value = ((value ^ (value >> 33)) * 0xFF51AFD7ED558CCD) & _WORD
    value = ((value ^ (value >> 33)) * 0xC4CEB9FE1A85EC53) & _WORD
    value ^= value >> 33
    return (value >> _SCORE_BITS) ^ (value & ((1 << _SCORE_BITS) - 1))


def scored(nodes: Iterable[str]) -> str:
    """Return `score node score node ...` as the server-side functions take members, highest score first.

    Highest first because a small sorted set in Redis is a list: each member is then put in at its head.
    """
    return " ".join(f"{place} {node}" for place, node in sorted(((score(node), node) for node in nodes), reverse=True))


def entry(generator: str, key: str) -> str:
    """Return the field of the index for a generator's pool: the name of a generator holds no slash."""
    return f"{generator}/{key}"


@dataclass(frozen=True, slots=True)
class FleetKeys:
    """The keys of one fleet: all of them begin with the hash tag `{<prefix>:<namespace>}`.

    Raises ValueError for a prefix or namespace that would break the tag.
    """

    prefix: str
    namespace: str

    def __post_init__(self) -> None:
        for part in (self.prefix, self.namespace):
            if not part or not part.isprintable() or set(part) & set("{} "):
                raise ValueError(f"no braces or blanks in a prefix or namespace of Redis keys, and not empty: {part!r}")

    def _named(self, rest: str) -> str:
        return f"{{{self.prefix}:{self.namespace}}}:{rest}"

    @property
    def meta(self) -> str:
        """Hash: term, owner, stampMs, complete, schema."""
        return self._named("meta")

    @property
    def pools(self) -> str:
        """Set of the names of all pools."""
        return self._named("pools")

    @property
    def nodes(self) -> str:
        """Set of the names of all nodes."""
        return self._named("nodes")

    @property
    def index(self) -> str:
        """Hash: generator and key (see entry) to the name of the pool."""
        return self._named("index")

    @property
    def load(self) -> tuple[str, str, str]:
        """Return the keys of reservations and load reports, which dispatchers write.

        Sorted set: node to the sum of its weights. Hash: id to node and weight. Sorted set: id to its expiry, ms.
        """
        base = self._named("load")
        return base, f"{base}:entries", f"{base}:expiries"

    def node(self, name: str) -> str:
        """Hash: type to JSON, and `.facts` with term, version and digest."""
        return self._named(f"node:{name}")

    def history(self, name: str) -> str:
        """List: a node's last transitions (see history), newest first. No name of a node holds a colon."""
        return self._named(f"node:{name}:history")

    def pool(self, name: str) -> tuple[str, str, str, str]:
        """Return a pool's keys: its hash of facts and its sorted sets in the order of STATES."""
        facts = self._named(f"pool:{name}")
        return facts, f"{facts}:ready", f"{facts}:suspect", f"{facts}:draining"

    def staged(self, name: str, term: int, version: int) -> tuple[str, str, str]:
        """Return the keys that collect a large pool's members before the swap: no two writes share them."""
        base = self._named(f"stage:{term}:{version}:{name}")
        return f"{base}:ready", f"{base}:suspect", f"{base}:draining"
