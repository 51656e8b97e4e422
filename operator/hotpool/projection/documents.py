"""Desired state of a pool and of a node in Redis: documents with a digest that the drift check compares.

Pure: must not import redis or do I/O. The digest of a large pool takes milliseconds. Build a document only when its
content changes, from the former one if there is one, and keep it.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import InitVar, dataclass, field
from typing import Final

from hotpool.core.capacity import NodeLimits, ReadyService
from hotpool.core.model import Endpoint
from hotpool.projection.keys import STATES

_LAYOUT = "3"  # Part of each digest: after a change of the layout every document differs and is rewritten.

Capability = tuple[str, bool, str | None, tuple[str, ...]]  # type, ready, reason if not, ids of the ready services


def _digest(parts: Iterable[str]) -> str:
    return hashlib.blake2b("\x00".join((_LAYOUT, *parts)).encode(), digest_size=12).hexdigest()


class _MemberHashes(dict[str, int]):
    """Cache of node name → hash of 128 bits. The digest of a set is the sum over its members, independent of order."""

    def __missing__(self, name: str) -> int:
        if len(self) > _MAX_CACHED_HASHES:
            self.clear()
        number = self[name] = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=16).digest())
        return number


_MEMBER_HASHES = _MemberHashes()
_MAX_CACHED_HASHES = 1_000_000
_MASK = 2**128 - 1


def _hash_sum(members: Iterable[str]) -> int:
    return sum(map(_MEMBER_HASHES.__getitem__, members)) & _MASK


def _encode_endpoint(endpoint: Endpoint) -> str:
    protocol = endpoint.app_protocol or ""
    parts = (
        endpoint.type,
        endpoint.service,
        str(endpoint.port),
        protocol if protocol.isprintable() and not set(protocol) & set("| ") else "",
        ",".join(endpoint.addresses),
    )
    return "|".join(parts)


def encode_exceptions(exceptions: Iterable[tuple[str, str]]) -> str:
    """Encode nodes and those of their services that meet a pool, as the functions of pools expect them."""
    return " ".join(f"{node} {services}" for node, services in exceptions)


def encode_endpoints(endpoints: Iterable[Endpoint], limits: NodeLimits | None = None) -> str:
    """Return the entry of a node in the hash of endpoints: `type|service|port|appProtocol|address,...` of each service.

    Services are sorted and separated by a blank. Readers ignore further fields. With `limits`, a service with a limit
    has it as sixth field, services without an endpoint are listed with an empty port and no address, and a word
    `type|limit` follows for each type with a limit.
    """
    words = {ReadyService(item.type, item.service): _encode_endpoint(item) for item in endpoints}
    for service, limit in limits.services.items() if limits else ():
        word = words.get(service, f"{service.type}|{service.service}|||")
        words[service] = word if limit is None else f"{word}|{limit}"
    types = sorted(limits.types.items()) if limits else ()
    return " ".join([*(words[service] for service in sorted(words)), *(f"{type_}|{limit}" for type_, limit in types)])


def encode_services(services: Iterable[str]) -> str:
    """Return the value of a node in a pool's hash of services: ids separated by a comma, `-` for none."""
    return ",".join(services) or "-"


@dataclass(frozen=True, slots=True)
class PoolServices:
    """Services of which a pick of the pool answers the endpoints."""

    types: tuple[str, ...] = ()
    """Required types, in the order of the pool's spec."""
    filtered: bool = False
    """True if a ready service of these types may fail to meet the pool."""
    endpoint_required: bool = False
    exceptions: Mapping[str, str] = field(default_factory=dict)
    """Member of which not every ready service of these types meets the pool, to those that do (encode_services)."""

    def encode(self) -> str:
        """Return the fact `services` of the pool: flags and types, such as `fe:asr nmt`."""
        return f"{'f' * self.filtered}{'e' * self.endpoint_required}:{' '.join(self.types)}"


ANY_SERVICES: Final = PoolServices()
"""Of a pool that requires no type, and of every pool while the writer does not maintain endpoints."""

_MemberSets = tuple[frozenset[str], frozenset[str], frozenset[str]]


@dataclass(frozen=True, slots=True)
class MembershipChange:
    """Difference between the member sets of two documents, in the order of keys.STATES."""

    added: _MemberSets
    removed: _MemberSets
    exceptions: Mapping[str, str] = field(default_factory=dict)
    """Exceptions that are new or changed, and `dropped`: members without one now (PoolServices)."""
    dropped: frozenset[str] = frozenset()

    @property
    def size(self) -> int:
        """Number of members and exceptions added and removed. A member with a new state counts as both."""
        members = sum(map(len, self.added)) + sum(map(len, self.removed))
        return members + len(self.exceptions) + len(self.dropped)

    @property
    def grows(self) -> bool:
        """Return True if the number of members increases."""
        return sum(map(len, self.added)) > sum(map(len, self.removed))


@dataclass(frozen=True, slots=True)
class PoolDocument:
    """Desired state of one pool in Redis: one member set per state (E4), each node in one of them.

    `uid`: metadata.uid of the pool. `generator`, `key`: None for a pool without a generator. `former`: any earlier
    document. The digest is then computed from the difference, and unchanged sets are shared.
    """

    name: str
    uid: str
    generator: str | None
    key: str | None
    ready: frozenset[str] = field(compare=False)
    suspect: frozenset[str] = field(compare=False)
    draining: frozenset[str] = field(compare=False)
    former: InitVar["PoolDocument | None"] = None
    services: PoolServices = field(default=ANY_SERVICES, compare=False)
    sums: tuple[int, ...] = field(init=False, repr=False, compare=False)
    """Hash sum of each member set, a part of the digest."""
    digest: str = field(init=False, repr=False)
    """Equal for documents with equal members. Comparisons use it in place of the member sets."""

    def __post_init__(self, former: "PoolDocument | None") -> None:
        if former:
            self._derive(former)
        else:
            object.__setattr__(self, "sums", tuple(map(_hash_sum, self.members)))
        parts = [self.name, self.uid, self.generator or "", self.key or ""]
        for members, total in zip(self.members, self.sums, strict=True):
            parts += [str(len(members)), f"{total:x}"]
        parts.append(self.services.encode())
        parts.append(f"{_hash_sum(f'{node} {ids}' for node, ids in self.services.exceptions.items()):x}")
        object.__setattr__(self, "digest", _digest(parts))

    def _derive(self, former: "PoolDocument") -> None:
        change = self.change_from(former)
        parts = zip(former.sums, change.added, change.removed, strict=True)
        object.__setattr__(
            self, "sums", tuple((old + _hash_sum(new) - _hash_sum(removed)) & _MASK for old, new, removed in parts)
        )
        for state, added, removed in zip(STATES, change.added, change.removed, strict=True):
            if not added and not removed:
                object.__setattr__(self, state, getattr(former, state))

    @property
    def members(self) -> _MemberSets:
        """The three member sets in the order of keys.STATES."""
        return self.ready, self.suspect, self.draining

    def change_from(self, former: "PoolDocument") -> MembershipChange:
        """Return the difference from the members of `former` to the members of this document."""
        (ready, suspect, draining), (was_ready, was_suspect, was_draining) = self.members, former.members
        exceptions, were = self.services.exceptions, former.services.exceptions
        return MembershipChange(
            added=(ready - was_ready, suspect - was_suspect, draining - was_draining),
            removed=(was_ready - ready, was_suspect - suspect, was_draining - draining),
            exceptions=dict(exceptions.items() - were.items()),
            dropped=frozenset(were.keys() - exceptions.keys()),
        )

    @property
    def size(self) -> int:
        """Number of members and exceptions, which a whole write sends."""
        return sum(map(len, self.members)) + len(self.services.exceptions)

    def arguments(self, term: int, version: int, digest: str) -> list[str | int | float]:
        """Return the facts of a write, as the functions of pools expect them first. `digest`: that of the write."""
        names = (self.name, self.uid, digest, self.generator or "", self.key or "")
        return [term, version, *names, *map(len, self.members), self.services.encode()]

    def is_of_pool(self, other: "PoolDocument") -> bool:
        """Return True if both are of one pool object with one index field."""
        return (self.uid, self.generator, self.key) == (other.uid, other.generator, other.key)


@dataclass(frozen=True, slots=True)
class NodeDocument:
    """Desired state of one node in Redis: type, ready, reason and the ids of the ready services (E3), and endpoints.

    A later entry of the same type wins. A type that begins with a dot is reserved and left out. `endpoints`: see
    encode_endpoints.
    """

    name: str
    capabilities: tuple[Capability, ...]
    endpoints: str = ""
    digest: str = field(init=False, repr=False)
    size: int = field(init=False, repr=False)
    """Number of fields."""

    def __post_init__(self) -> None:
        fields = self.fields()
        parts = (f"{kind}\x01{text}" for kind, text in sorted(fields.items()))
        object.__setattr__(self, "digest", _digest([*parts, "\x02", self.endpoints]))
        object.__setattr__(self, "size", len(fields))

    def fields(self) -> dict[str, str]:
        """Return the fields of the hash: type to JSON `{"ready": bool, "reason": str | null, "services": [id]}`."""
        return {
            kind: json.dumps({"ready": ready, "reason": reason, "services": services}, separators=(",", ":"))
            for kind, ready, reason, services in self.capabilities
            if not kind.startswith(".")
        }
