"""Sans-I/O protocol of the look-up: generators that yield Redis commands and receive the replies from a client.

Must not do I/O. The only state is a cache of pool names, and what was learnt of limits and rights.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, Final, TypeAlias, TypeVar

from redis.exceptions import RedisClusterException, RedisError

from hotpool.core.node_history import Transition
from hotpool.projection.connection.config import to_text
from hotpool.projection.failures import EJECTED_FIELD, Ejection, parse_ejections
from hotpool.projection.functions import LIBRARY, CommandArgs, build_call, is_library_missing
from hotpool.projection.history import MAX_TRANSITIONS, decode_valid
from hotpool.projection.keys import FleetKeys, index_field
from hotpool.projection.lookup.pick_options import PickOptions, PickRequest, report_arguments, ttl_milliseconds
from hotpool.projection.lookup.report_protocol import ReportProtocol, reservation_id
from hotpool.projection.lookup.results import (
    TRIAL_DUE,
    WITHOUT_POOL,
    Capability,
    Members,
    NoMember,
    Picked,
    Reason,
    Reservation,
    has_limit,
    parse_freshness,
    parse_pick,
    parse_type_state,
)
from hotpool.projection.lookup.steps import Steps
from hotpool.projection.redis_errors import failure_reason

P = TypeVar("P")
BuildCall: TypeAlias = Callable[[str, P, int, frozenset[str], bool], CommandArgs]
"""Builds a call from a function, its pool or pools, the number of load keys, denied features, and limits."""

_MAX_CACHED = 4096
_DUE: Final = (f" {TRIAL_DUE}", f" {TRIAL_DUE}".encode())
_MAX_ATTEMPTS = 10
_WORDS_BEFORE_RESERVED = 6
_PIPELINED: Final = 500
"""Maximum of commands in one pipeline."""
FAILURES = (RedisError, RedisClusterException, OSError, ValueError, LookupError, TypeError, AttributeError)
"""Errors of a command, and of parsing an invalid reply."""


class LookupUnavailableError(Exception):
    """Redis returned no valid reply. The state of the pool is unknown."""


def failure_text(error: BaseException, description: str) -> str:
    """Return the text for a failure: its reason in plain words, if there is one, and the description of the error."""
    if isinstance(error, Exception) and is_library_missing(error):
        question = "has an operator reached this Redis, and is it as new as this client?"
        return f"{description} (no library {LIBRARY}: {question})"
    label, reason = failure_reason(error)
    return description if label == "other" else f"{reason} ({description})"


class LookupProtocol(ReportProtocol):
    """Look-ups in one fleet. Invalid arguments raise ValueError or TypeError before the first command."""

    def __init__(self, *, namespace: str, prefix: str, chance: Callable[[], float], source: str | None = None) -> None:
        super().__init__(FleetKeys(prefix, namespace), source)
        self._chance = chance
        self._pool_names: dict[str, str] = {}
        self._limited = False
        """True once a service with a limit was answered. Picks then prefer room; before, they save the key of slots."""
        self._cached_call = lru_cache(_MAX_CACHED)(self._build_call)

    def pick(self, pool: str, options: PickOptions) -> Steps[Picked | NoMember]:
        """Pick a node of a pool by the pool's name."""
        return self._pick(pool, "", PickRequest.from_options(options, self._chance))

    def pick_key(self, generator: str, key: str, options: PickOptions) -> Steps[Picked | NoMember]:
        """Pick a node of the pool that a generator made for a key. The pool's name is cached."""
        return self._pick_by_field(index_field(generator, key), PickRequest.from_options(options, self._chance))

    def _pick_by_field(self, field: str, request: PickRequest) -> Steps[Picked | NoMember]:
        cached = self._pool_names.get(field)
        if cached:
            result = yield from self._pick(cached, field, request)
            if isinstance(result, Picked) or result.reason not in WITHOUT_POOL:
                return result
        age, complete, found, word = yield build_call("find", (self._keys.meta, self._keys.index), (field,))
        name = to_text(found)
        if not name:
            self._pool_names.pop(field, None)
            return request.without_pool(field, Reason(to_text(word)), *parse_freshness(age, complete))
        if len(self._pool_names) >= _MAX_CACHED:
            self._pool_names.clear()
        self._pool_names[field] = name
        return (yield from self._pick(name, field, request))

    def _pick(self, pool: str, field: str, request: PickRequest) -> Steps[Picked | NoMember]:
        arguments = request.arguments(field)
        if request.reservation:
            identity, weight, _ = request.reservation
            reply = yield from self._choose(self._cached_call, "reserve", pool, 3, arguments)
            self._limited = self._limited or has_limit(reply, _WORDS_BEFORE_RESERVED)
            return parse_pick(pool, reply, identity, weight=weight, slots="slots" not in self._denied)
        loads = 1 if request.needs_load else 0
        reply = yield from self._choose(self._cached_call, "pick", pool, loads, arguments)
        self._limited = self._limited or has_limit(reply)
        if reply.endswith(_DUE[isinstance(reply, bytes)]) and "report" not in self._denied:
            reply = yield from self._take_trial(self._cached_call, pool, loads, arguments, reply)
        return parse_pick(pool, reply)

    def _choose(self, build: BuildCall[P], name: str, pools: P, loads: int, arguments: CommandArgs) -> Steps[Any]:
        """Call a function that picks, without the keys that our user may not use."""
        while True:
            try:
                return (yield build(name, pools, loads, self._denied, self._limited) + arguments)
            except RedisError as error:
                if not (yield from self._find_denied(error, writes=name == "reserve")):
                    raise

    def _take_trial(self, build: BuildCall[P], pools: P, loads: int, arguments: CommandArgs, reply: Any) -> Steps[Any]:
        """Pick again, with the trial that is due. Return the first reply if it cannot be, such as on a replica."""
        try:
            return (yield build("pick_trial", pools, loads, self._denied, self._limited) + arguments)
        except RedisError as error:
            yield from self._note_denied("report", error)
            return reply

    def _build_call(self, name: str, pool: str, loads: int, denied: frozenset[str], limited: bool) -> CommandArgs:  # noqa: FBT001 - part of the key of a cache.
        """Return a call with the keys of the pool and the first `loads` load keys, as bytes because it is cached."""
        keys = self._pick_keys(name, pool, loads, denied, limited=limited)
        return build_call(name, [key.encode() for key in keys], writes=name != "pick")

    def _pick_keys(self, name: str, pool: str, loads: int, denied: frozenset[str], *, limited: bool) -> tuple[str, ...]:
        facts, ready, suspect, _ = self._keys.pool(pool)
        failures = () if "pick" in denied else self._keys.failures[:1]
        slots: tuple[str, ...] = () if "slots" in denied else self._keys.slots
        if name != "reserve":  # a pick reads the first key of slots, which has a place behind all others only
            slots = slots[:1] if failures and limited else ()
        loaded = self._keys.load[: max(loads, len(slots[:1]))]
        last = (*slots, *failures) if name == "reserve" else (*failures, *slots)
        services = self._keys.endpoints, self._keys.services(pool)
        return (self._keys.meta, facts, ready, suspect, *services, *loaded, *last)

    def renew(self, reservation: Reservation | str, seconds: float) -> Steps[Reservation | None]:
        """Extend a reservation to `seconds` from now, or reserve it again if it is lost."""
        return self._renew(reservation, ttl_milliseconds(seconds))

    def _renew(self, reservation: Reservation | str, ttl: int) -> Steps[Reservation | None]:
        identity = reservation_id(reservation)
        arguments: CommandArgs = (identity, ttl)
        if isinstance(reservation, Reservation):
            arguments = (*arguments, reservation.weight, reservation.node, *reservation.services.values())
        while True:
            slots = self._slot_keys()
            keys = (*self._keys.load, *slots, *((self._keys.endpoints,) if slots else ()))
            try:
                node, expiry = yield build_call("renew", keys, arguments, writes=True)
                break
            except RedisError as error:
                if not (yield from self._find_denied(error)):
                    raise
        if not expiry:
            return None
        if isinstance(reservation, str):
            return Reservation(identity, to_text(node), int(expiry) / 1000)
        return replace(reservation, expires=int(expiry) / 1000)

    def report_load(self, loads: Mapping[str, float], source: str, seconds: float) -> Steps[None]:
        """Report loads of nodes."""
        return self._report(report_arguments(loads, source, seconds))

    def _report(self, calls: Sequence[CommandArgs]) -> Steps[None]:
        for words in calls:
            yield build_call("report", self._keys.load, words, writes=True)

    def ejections(self) -> Steps[tuple[Ejection, ...]]:
        """Read the ejected services, after a check that an operator writes to this Redis at all."""
        yield build_call("capability", (self._keys.meta, self._keys.node("")))
        text = yield ("HGET", self._keys.failures[0], EJECTED_FIELD)
        return parse_ejections(to_text(text or ""))

    def members(self, pool: str) -> Steps[Members]:
        """Read all members of a pool, page by page. Restart if the pool changed in between."""
        for _ in range(_MAX_ATTEMPTS):
            result = yield from self._members(pool)
            if result:
                return result
        raise LookupError(f"pool {pool} changes faster than its members can be read")

    def _members(self, pool: str) -> Steps[Members | None]:
        keys = (self._keys.meta, *self._keys.pool(pool))
        first_rank = 0
        lists: tuple[list[str], ...] = ([], [], [])
        current: tuple[Any, Any] | None = None
        while True:
            age, complete, version, digest, next_rank, *pages = yield build_call("members", keys, (first_rank,))
            if current not in {None, (version, digest)}:
                return None
            current = version, digest
            for members, page in zip(lists, pages, strict=True):
                members.extend(map(to_text, page))
            first_rank = next_rank
            if not first_rank:
                ready, suspect, draining = (tuple(sorted(members)) for members in lists)
                number = int(version) if version else None
                return Members(number, ready, suspect, draining, *parse_freshness(age, complete))

    def capability(self, node: str) -> Steps[Capability | None]:
        """Read the capability of a node."""
        age, complete, flat = yield build_call("capability", (self._keys.meta, self._keys.node(node)))
        fields = {to_text(name): to_text(value) for name, value in zip(flat[::2], flat[1::2], strict=True)}
        if not fields:
            return None
        types = {kind: parse_type_state(value) for kind, value in fields.items() if not kind.startswith(".")}
        return Capability(node, types, *parse_freshness(age, complete))

    def transitions(self, node: str) -> Steps[tuple[Transition, ...]]:
        """Read the last transitions of a node. Without any, check that an operator writes to this Redis at all."""
        result = yield self.call_history(node)
        if not result:
            yield from self.capability(node)
        return parse_history(result)

    def call_history(self, node: str) -> CommandArgs:
        """Return the command that reads the last transitions of a node."""
        return ("LRANGE", self._keys.history(node), 0, MAX_TRANSITIONS - 1)


def in_pipelines(nodes: Sequence[str]) -> Iterator[Sequence[str]]:
    """Yield the nodes in parts, one for each pipeline, which bounds the reply that is held in memory."""
    for start in range(0, len(nodes), _PIPELINED):
        yield nodes[start : start + _PIPELINED]


def parse_history(reply: Sequence[Any]) -> tuple[Transition, ...]:
    """Decode the last transitions of a node, without invalid ones."""
    return tuple(decode_valid(map(to_text, reply)))
