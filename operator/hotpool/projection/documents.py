"""What Redis shall hold of a pool and of a node: the whole image, with a digest that the audit compares.

Built by the reconciler, read by writer and audit. Pure: it must not import redis or do I/O. An image of a large pool
takes milliseconds to digest, so build one when its content changes, from the former one if any, and keep it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import InitVar, dataclass, field
from typing import TYPE_CHECKING

from hotpool.projection.keys import STATES

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


def _sum(members: Iterable[str]) -> int:
    return sum(map(_NUMBERS.__getitem__, members)) & _MASK


_Sets = tuple[frozenset[str], frozenset[str], frozenset[str]]


@dataclass(frozen=True, slots=True)
class Change:
    """What turns one image's member sets into another's, in the order of keys.STATES."""

    added: _Sets
    removed: _Sets

    @property
    def size(self) -> int:
        """Members added and removed; one that changes its state counts twice."""
        return sum(map(len, self.added)) + sum(map(len, self.removed))

    @property
    def grows(self) -> bool:
        """Tell whether there are more members afterwards."""
        return sum(map(len, self.added)) > sum(map(len, self.removed))


@dataclass(frozen=True, slots=True)
class PoolDocument:
    """All that Redis shall hold of one pool: one member set per state (E4), a node in one of them.

    `uid` is the pool's in Kubernetes; `generator` and `key` are None for a pool that people made. `former`: any earlier
    image, to be digested by the difference from it; what is the same is then shared with it.
    """

    name: str
    uid: str
    generator: str | None
    key: str | None
    ready: frozenset[str] = field(compare=False)
    suspect: frozenset[str] = field(compare=False)
    draining: frozenset[str] = field(compare=False)
    former: InitVar[PoolDocument | None] = None
    sums: tuple[int, ...] = field(init=False, repr=False, compare=False)
    """Of each member set the sum that is part of the digest."""
    digest: str = field(init=False, repr=False)
    """Two images of the same members have the same; it stands for them in comparisons."""

    def __post_init__(self, former: PoolDocument | None) -> None:
        if former:
            self._derive(former)
        else:
            object.__setattr__(self, "sums", tuple(map(_sum, self.members)))
        parts = [self.name, self.uid, self.generator or "", self.key or ""]
        for members, total in zip(self.members, self.sums, strict=True):
            parts += [str(len(members)), f"{total:x}"]
        object.__setattr__(self, "digest", _digest(parts))

    def _derive(self, former: PoolDocument) -> None:
        change = self.change_from(former)
        parts = zip(former.sums, change.added, change.removed, strict=True)
        object.__setattr__(self, "sums", tuple((was + _sum(new) - _sum(gone)) & _MASK for was, new, gone in parts))
        for state, added, removed in zip(STATES, change.added, change.removed, strict=True):
            if not added and not removed:
                object.__setattr__(self, state, getattr(former, state))

    @property
    def members(self) -> _Sets:
        """The three member sets in the order of keys.STATES."""
        return self.ready, self.suspect, self.draining

    def change_from(self, former: PoolDocument) -> Change:
        """Return what turns the members of `former` into ours."""
        (ready, suspect, draining), (was_ready, was_suspect, was_draining) = self.members, former.members
        return Change(
            added=(ready - was_ready, suspect - was_suspect, draining - was_draining),
            removed=(was_ready - ready, was_suspect - suspect, was_draining - draining),
        )


@dataclass(frozen=True, slots=True)
class NodeDocument:
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
