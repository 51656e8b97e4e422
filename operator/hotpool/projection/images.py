"""What Redis shall hold of a pool and of a node: the whole image, with a digest that the audit compares.

Built by the reconciler, read by writer and audit. Pure: it must not import redis or do I/O. An image of a large pool
takes milliseconds to digest, so build one when its content changes and keep it; the digest is computed once.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_LAYOUT = "2"  # Part of each digest: another layout in Redis makes every image differ, so all is rewritten.

Capability = tuple[str, bool, str | None, tuple[str, ...]]  # type, ready, reason when not, ids of the ready services


def _digest(parts: Iterable[str]) -> str:
    return hashlib.blake2b("\x00".join((_LAYOUT, *parts)).encode(), digest_size=12).hexdigest()


class _Numbers(dict[str, int]):
    """Node name → a number of 128 bits; a set's digest is the sum over its members, which needs no order."""

    def __missing__(self, name: str) -> int:
        if len(self) > _NUMBERS_KEPT:
            self.clear()
        number = self[name] = int.from_bytes(hashlib.blake2b(name.encode(), digest_size=16).digest())
        return number


_NUMBERS = _Numbers()
_NUMBERS_KEPT = 1_000_000
_MASK = 2**128 - 1


@dataclass(frozen=True, slots=True)
class PoolImage:
    """All that Redis shall hold of one pool: one member set per state (E4), a node in one of them.

    `uid` is the pool's in Kubernetes; `generator` and `key` are None for a pool that people made.
    """

    name: str
    uid: str
    generator: str | None
    key: str | None
    ready: frozenset[str] = field(compare=False)
    suspect: frozenset[str] = field(compare=False)
    draining: frozenset[str] = field(compare=False)
    digest: str = field(init=False, repr=False)
    """Two images of the same members have the same; it stands for them in comparisons."""

    def __post_init__(self) -> None:
        parts = [self.name, self.uid, self.generator or "", self.key or ""]
        for members in self.members:
            parts += [str(len(members)), f"{sum(map(_NUMBERS.__getitem__, members)) & _MASK:x}"]
        object.__setattr__(self, "digest", _digest(parts))

    @property
    def members(self) -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
        """The three member sets in the order of keys.STATES."""
        return self.ready, self.suspect, self.draining


@dataclass(frozen=True, slots=True)
class NodeImage:
    """All that Redis shall hold of one node: type, ready, reason and the ids of the ready services (E3).

    A later entry of the same type wins; a type that begins with a dot is reserved and left out.
    """

    name: str
    capabilities: tuple[Capability, ...]
    digest: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", _digest(f"{kind}\x01{text}" for kind, text in sorted(self.fields().items())))

    def fields(self) -> dict[str, str]:
        """Return type to JSON `{"ready": bool, "reason": str | null, "services": [id]}`, as the hash holds it."""
        return {
            kind: json.dumps({"ready": ready, "reason": reason, "services": services}, separators=(",", ":"))
            for kind, ready, reason, services in self.capabilities
            if not kind.startswith(".")
        }
