"""What a look-up asks of Redis, step by step, without asking: the clients send the words and hand back the replies.

Pure but for what it remembers: it must not do I/O.
"""

from __future__ import annotations

from collections.abc import Generator
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from redis.exceptions import RedisClusterException, RedisError

from hotpool.projection.connection.config import to_text
from hotpool.projection.functions import LIBRARY, Words, call_of, is_missing
from hotpool.projection.history import KEPT, readable
from hotpool.projection.keys import FleetKeys, entry
from hotpool.projection.lookup.pick_options import PickOptions, PickRequest, milliseconds, report_arguments
from hotpool.projection.lookup.results import (
    Capability,
    Members,
    NoMember,
    Picked,
    Reason,
    Reservation,
    parse_freshness,
    parse_pick,
    parse_type_state,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from hotpool.core.node_history import Transition

T = TypeVar("T")
Steps: TypeAlias = Generator[Words, Any, T]
"""Gives the words of each command, takes its reply, returns the answer."""

_MAX_RESOLVED = 4096
_READINGS = 10
FAILURES = (RedisError, RedisClusterException, OSError, ValueError, LookupError, TypeError, AttributeError)
"""What asking raises, and reading a reply that is not as it should be."""


class LookupUnavailableError(Exception):
    """Redis did not answer, or not as it should; nothing is known about the pool then."""


def advice(error: BaseException) -> str:
    """Return what else to say of an error."""
    missing = isinstance(error, Exception) and is_missing(error)
    return f" (no library {LIBRARY}: has an operator reached this Redis?)" if missing else ""


class LookupProtocol:
    """The questions to one fleet. What is wrong with the arguments raises ValueError before the first step."""

    def __init__(self, *, namespace: str, prefix: str, chance: Callable[[], float]) -> None:
        self._keys = FleetKeys(prefix, namespace)
        self._chance = chance
        self._resolved: dict[str, str] = {}
        self._call = lru_cache(_MAX_RESOLVED)(self._call_of)

    def pick(self, pool: str, how: PickOptions) -> Steps[Picked | NoMember]:
        """Ask for a node of a pool by its name."""
        return self._picked(pool, "", PickRequest.of(how, self._chance))

    def pick_key(self, generator: str, key: str, how: PickOptions) -> Steps[Picked | NoMember]:
        """Ask for a node of the pool that a generator made for a key, by the name known for it."""
        return self._found(entry(generator, key), PickRequest.of(how, self._chance))

    def _found(self, field: str, choice: PickRequest) -> Steps[Picked | NoMember]:
        known = self._resolved.get(field)
        if known:
            found = yield from self._picked(known, field, choice)
            if isinstance(found, Picked) or found.reason is not Reason.POOL_UNKNOWN:
                return found
        age, complete, found = yield call_of("find", (self._keys.meta, self._keys.index), (field,))
        name = to_text(found)
        if not name:
            self._resolved.pop(field, None)
            return choice.unknown(field, *parse_freshness(age, complete))
        if len(self._resolved) >= _MAX_RESOLVED:
            self._resolved.clear()
        self._resolved[field] = name
        return (yield from self._picked(name, field, choice))

    def _picked(self, pool: str, field: str, choice: PickRequest) -> Steps[Picked | NoMember]:
        arguments = choice.arguments(field)
        if choice.reservation:
            reply = yield self._call("reserve", pool, 3) + arguments
            return parse_pick(pool, reply, choice.reservation[0])
        return parse_pick(pool, (yield self._call("pick", pool, 1 if choice.needs_load else 0) + arguments))

    def _call_of(self, name: str, pool: str, loads: int) -> Words:
        """Begin a call of a pick with the pool's keys and so many of those of the load: bytes, for they are kept."""
        facts, ready, suspect, _ = self._keys.pool(pool)
        keys = (self._keys.meta, facts, ready, suspect, *self._keys.load[:loads])
        return call_of(name, [key.encode() for key in keys], writes=name == "reserve")

    def release(self, reservation: Reservation | str) -> Steps[bool]:
        """Give a reservation back."""
        reply = yield call_of("release", self._keys.load, (_id_of(reservation),), writes=True)
        return bool(reply)

    def renew(self, reservation: Reservation | str, seconds: float) -> Steps[Reservation | None]:
        """Hold a reservation for so many seconds from now."""
        return self._renewed(_id_of(reservation), milliseconds(seconds))

    def _renewed(self, identity: str, span: int) -> Steps[Reservation | None]:
        node, expiry = yield call_of("renew", self._keys.load, (identity, span), writes=True)
        return Reservation(identity, to_text(node), int(expiry) / 1000) if expiry else None

    def report_load(self, loads: Mapping[str, float], source: str, seconds: float) -> Steps[None]:
        """Say how loaded nodes are."""
        return self._reported(report_arguments(loads, source, seconds))

    def _reported(self, calls: Sequence[Words]) -> Steps[None]:
        for words in calls:
            yield call_of("report", self._keys.load, words, writes=True)

    def members(self, pool: str) -> Steps[Members]:
        """Ask for all members of a pool, page by page; from the first again where the pool changed meanwhile."""
        for _ in range(_READINGS):
            found = yield from self._members(pool)
            if found:
                return found
        raise LookupError(f"pool {pool} changes faster than its members can be read")

    def _members(self, pool: str) -> Steps[Members | None]:
        keys = (self._keys.meta, *self._keys.pool(pool))
        first = 0
        lists: tuple[list[str], ...] = ([], [], [])
        known: tuple[Any, Any] | None = None
        while True:
            age, complete, version, digest, following, *names = yield call_of("members", keys, (first,))
            if known not in {None, (version, digest)}:
                return None
            known = version, digest
            for members, some in zip(lists, names, strict=True):
                members.extend(map(to_text, some))
            first = following
            if not first:
                ready, suspect, draining = (tuple(sorted(members)) for members in lists)
                stated = int(version) if version else None
                return Members(stated, ready, suspect, draining, *parse_freshness(age, complete))

    def capability(self, node: str) -> Steps[Capability | None]:
        """Ask what a node can do."""
        age, complete, flat = yield call_of("capability", (self._keys.meta, self._keys.node(node)))
        fields = {to_text(name): to_text(value) for name, value in zip(flat[::2], flat[1::2], strict=True)}
        if not fields:
            return None
        types = {kind: parse_type_state(value) for kind, value in fields.items() if not kind.startswith(".")}
        return Capability(node, types, *parse_freshness(age, complete))

    def transitions(self, node: str) -> Steps[tuple[Transition, ...]]:
        """Ask what changed about a node lately."""
        found = yield ("LRANGE", self._keys.history(node), 0, KEPT - 1)
        return tuple(readable(map(to_text, found)))


def _id_of(reservation: Reservation | str) -> str:
    return reservation if isinstance(reservation, str) else reservation.id
