"""Sans-I/O protocol of picks from several pools in order (E10): the first one that has a node answers.

Must not do I/O. One call asks all pools, as of one moment (lua/fallback.lua).
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, Final

from hotpool.projection.connection.config import to_text
from hotpool.projection.functions import CommandArgs, build_call
from hotpool.projection.keys import index_field
from hotpool.projection.lookup.pick_options import PickOptions, PickRequest
from hotpool.projection.lookup.protocol import LookupProtocol
from hotpool.projection.lookup.results import (
    NO_NODE,
    TRIAL_DUE,
    WITHOUT_POOL,
    NoMember,
    Picked,
    has_limit,
    parse_pick,
)
from hotpool.projection.lookup.steps import Steps

MAX_POOLS: Final = 32
"""Largest number of pools of one pick."""
_MAX_CACHED_NAMES: Final = 4096
_MAX_CACHED_CALLS: Final = 1024
_MAX_ATTEMPTS: Final = 10
_MOVED: Final = "? "
"""Begin of a reply that only names the pools of the index fields."""


class FallbackProtocol(LookupProtocol):
    """Look-ups in one fleet. A pick takes one pool, or several in order."""

    def __init__(self, *, namespace: str, prefix: str, chance: Callable[[], float], source: str | None = None) -> None:
        super().__init__(namespace=namespace, prefix=prefix, chance=chance, source=source)
        self._cached_fallback = lru_cache(_MAX_CACHED_CALLS)(self._build_fallback)

    def pick(self, pool: str | Sequence[str], options: PickOptions) -> Steps[Picked | NoMember]:
        """Pick a node of a pool by name, or of the first of several that has one."""
        if isinstance(pool, str):
            return super().pick(pool, options)
        pools = check_pools(pool)
        return self._pick_first(pools, ("",) * len(pools), PickRequest.from_options(options, self._chance))

    def pick_key(self, generator: str, key: str | Sequence[str], options: PickOptions) -> Steps[Picked | NoMember]:
        """Pick a node of the pool that a generator made for a key, or for the first of several that has one."""
        if isinstance(key, str):
            return super().pick_key(generator, key, options)
        fields = tuple(index_field(generator, one) for one in check_pools(key))
        return self._pick_first(None, fields, PickRequest.from_options(options, self._chance))

    def _pick_first(
        self, pools: tuple[str, ...] | None, fields: tuple[str, ...], request: PickRequest
    ) -> Steps[Picked | NoMember]:
        """Pick by names, or by index fields, whose pools are cached, and checked by the call."""
        for _ in range(_MAX_ATTEMPTS):
            names = pools or tuple(self._pool_names.get(field, "") for field in fields)
            reply = yield from self._ask(names, (len(names), *fields, *request.arguments("")), request)
            if not reply.startswith(_MOVED):
                return self._parse(names, fields, reply, request)
            if len(self._pool_names) + len(fields) > _MAX_CACHED_NAMES:
                self._pool_names.clear()
            found = zip(fields, reply.removeprefix(_MOVED).split(" "), strict=True)
            self._pool_names |= {field: name for field, name in found if name != NO_NODE}
        raise LookupError(f"the pools of {', '.join(fields)} change faster than they can be read")

    def _ask(self, names: tuple[str, ...], arguments: CommandArgs, request: PickRequest) -> Steps[str]:
        """Call the function, without the keys that our user may not use. A due trial is done."""
        name, loads = ("reserve", 3) if request.reservation else ("pick", 1 if request.needs_load else 0)
        build = self._cached_fallback
        reply = to_text((yield from self._choose(build, name, names, loads, arguments)))
        if name == "pick" and reply.endswith(f" {TRIAL_DUE}") and "report" not in self._denied:
            reply = to_text((yield from self._take_trial(build, names, loads, arguments, reply)))
        return reply

    def _build_fallback(
        self,
        name: str,
        pools: tuple[str, ...],
        loads: int,
        denied: frozenset[str],
        limited: bool,  # noqa: FBT001 - part of the key of a cache.
    ) -> CommandArgs:
        keys = [*self._pick_keys(name, pools[0], loads, denied, limited=limited)]
        for pool in pools[1:]:
            keys += [*self._keys.pool(pool)[:3], self._keys.services(pool)]
        keys.append(self._keys.index)
        function = {"pick": "pick_first", "pick_trial": "pick_first_trial", "reserve": "reserve_first"}[name]
        return build_call(function, [key.encode() for key in keys], writes=name != "pick")

    def _parse(
        self, names: tuple[str, ...], fields: tuple[str, ...], reply: str, request: PickRequest
    ) -> Picked | NoMember:
        identity, weight, _ = request.reservation or (None, 1, 0)
        if reply.startswith(NO_NODE):
            return _no_member(names, fields, reply)
        number, _, line = reply.partition(" ")
        self._limited = self._limited or has_limit(line, 6 if identity else 5)
        return parse_pick(names[int(number) - 1], line, identity, weight=weight, slots="slots" not in self._denied)


def _no_member(names: tuple[str, ...], fields: tuple[str, ...], reply: str) -> NoMember:
    """Return the result of the first pool, with those of all pools in order."""
    found: list[NoMember] = []
    for name, field, line in zip(names, fields, reply.split("\n"), strict=True):
        result: Any = parse_pick(name, line)
        unknown = bool(field) and result.reason in WITHOUT_POOL
        found.append(replace(result, pool=field) if unknown or not name else result)
    times = [result.retry_after for result in found if result.retry_after is not None]
    return replace(found[0], retry_after=min(times, default=None), candidates=tuple(found))


def check_pools(pools: str | Sequence[str]) -> tuple[str, ...]:
    """Return one or several names of pools, or keys. Raises ValueError."""
    names = (pools,) if isinstance(pools, str) else tuple(pools)
    if not 1 <= len(names) <= MAX_POOLS or not all(names):
        raise ValueError(f"a pick takes 1 to {MAX_POOLS} pools or keys, none of them empty: {names!r}")
    return names
