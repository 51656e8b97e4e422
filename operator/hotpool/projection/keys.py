"""Names of the Redis keys of one fleet, and the score of a node in a pool's sorted sets.

Pure: must not import redis or do I/O. All keys share one hash tag, so a fleet is in one slot of a Redis Cluster (E4:
the limit is one shard per fleet).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from hotpool.common.hashing import fnv1a64

STATES = ("ready", "suspect", "draining")
DEFAULT_PREFIX = "hotpool"

_64_BITS = (1 << 64) - 1
_SCORE_BITS = 52


@lru_cache(maxsize=1 << 16)
def score(node: str) -> int:
    """Return a node's position on the ring: 52 bits, exact in the double of a sorted set.

    FNV-1a-64 of the name, then mixed, because edge-001 to edge-009 would be neighbours, then folded to 52 bits.
    Must not change: the ring is stored in Redis, and an affinity pick must not move.
    """
    value = fnv1a64(node.encode())
    value = ((value ^ (value >> 33)) * 0xFF51AFD7ED558CCD) & _64_BITS
    value = ((value ^ (value >> 33)) * 0xC4CEB9FE1A85EC53) & _64_BITS
    value ^= value >> 33
    return (value >> _SCORE_BITS) ^ (value & ((1 << _SCORE_BITS) - 1))


def scored_members(nodes: Iterable[str]) -> str:
    """Return `score node score node ...`, the argument of the Redis functions, highest score first.

    Redis stores a small sorted set as a list. In this order each member is inserted at its head.
    """
    return " ".join(f"{place} {node}" for place, node in sorted(((score(node), node) for node in nodes), reverse=True))


def index_field(generator: str, key: str) -> str:
    """Return the field of the index for a generator's pool. The name of a generator contains no slash."""
    return f"{generator}/{key}"


@dataclass(frozen=True, slots=True)
class FleetKeys:
    """The keys of one fleet. All begin with the hash tag `{<prefix>:<namespace>}`.

    Raises ValueError for a prefix or namespace that would break the tag.
    """

    prefix: str
    namespace: str

    def __post_init__(self) -> None:
        for part in (self.prefix, self.namespace):
            if not part or not part.isprintable() or set(part) & set("{} "):
                raise ValueError(
                    f"prefix or namespace of Redis keys must not be empty or contain braces or blanks: {part!r}"
                )

    def _key(self, suffix: str) -> str:
        return f"{{{self.prefix}:{self.namespace}}}:{suffix}"

    @property
    def meta(self) -> str:
        """Hash: term, owner, cluster, claimMs, stampMs, complete, schema."""
        return self._key("meta")

    @property
    def pools(self) -> str:
        """Set of the names of all pools."""
        return self._key("pools")

    @property
    def nodes(self) -> str:
        """Set of the names of all nodes."""
        return self._key("nodes")

    @property
    def index(self) -> str:
        """Hash: generator and key (see index_field) to the name of the pool."""
        return self._key("index")

    @property
    def load(self) -> tuple[str, str, str]:
        """Return the keys of reservations and load reports, which dispatchers write.

        Sorted set: node to the sum of its weights. Hash: id to node and weight. Sorted set: id to its expiry, ms.
        """
        base = self._key("load")
        return base, f"{base}:entries", f"{base}:expiries"

    @property
    def slots(self) -> tuple[str, str, str]:
        """Return the keys of slots in use, which dispatchers write.

        Hash: `<node> <service>` to the number in use. Hash: id to node and services. Sorted set: id to its expiry, ms.
        """
        base = self._key("load:slots")
        return base, f"{base}:entries", f"{base}:expiries"

    @property
    def failures(self) -> tuple[str, str]:
        """Return the keys of failure reports, which dispatchers write.

        Hash: node and service to a record, `.ejected` to the records of all ejected services (failures.py). Sorted set:
        source to its last success, ms.
        """
        base = self._key("load")
        return f"{base}:failures", f"{base}:sources"

    @property
    def waiting(self) -> tuple[str, str]:
        """Return the keys of waiting picks, which dispatchers write.

        Stream of what may have made room, which exists while a pick waits. Hash: client to its expiry, ms, and the
        numbers of its waiters by pool.
        """
        base = self._key("load")
        return f"{base}:wakeups", f"{base}:waiters"

    @property
    def endpoints(self) -> str:
        """Hash: node to its endpoints (documents.endpoint_words)."""
        return self._key("endpoints")

    def node(self, name: str) -> str:
        """Return the key of a hash: type to JSON, and `.facts` with term, version and digest."""
        return self._key(f"node:{name}")

    def history(self, name: str) -> str:
        """Return the key of a list: a node's last transitions, newest first. The name of a node contains no colon."""
        return self._key(f"node:{name}:history")

    def pool(self, name: str) -> tuple[str, str, str, str]:
        """Return a pool's keys: its hash of facts, and its sorted sets in the order of STATES."""
        facts = self._key(f"pool:{name}")
        return facts, f"{facts}:ready", f"{facts}:suspect", f"{facts}:draining"

    def services(self, pool: str) -> str:
        """Return the key of a hash: node of which not every service meets the pool, to the ids of those that do."""
        return self._key(f"pool:{pool}:services")

    def staged(self, name: str, term: int, version: int) -> tuple[str, str, str, str]:
        """Return the keys that collect members and services of a large pool before the swap, each of one write."""
        base = self._key(f"stage:{term}:{version}:{name}")
        return f"{base}:ready", f"{base}:suspect", f"{base}:draining", f"{base}:services"
