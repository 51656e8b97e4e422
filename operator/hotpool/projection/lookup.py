"""The look-up client: which node for this pool, in one round trip, from any replica (E6).

Called by dispatchers, through hotpool.lookup. It only reads, and must not import what the operator needs: redis and
the standard library are enough.
"""

from __future__ import annotations

import secrets
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

from redis.exceptions import RedisError

from hotpool.projection.answers import (
    Capability,
    Members,
    NoMember,
    Picked,
    Reason,
    answer,
    freshness,
    type_state,
)
from hotpool.projection.client import TIMEOUT_SECONDS, connect, describe, text
from hotpool.projection.functions import LIBRARY, Functions, is_missing
from hotpool.projection.history import KEPT, decoded
from hotpool.projection.keys import DEFAULT_PREFIX, FleetKeys, entry

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from types import TracebackType

    from hotpool.core.story.transitions import Transition
    from hotpool.projection.client import Client

_MAX_RESOLVED = 4096
_RANDOM = secrets.SystemRandom()


class LookupFailed(Exception):  # noqa: N818 - it is what happened, as in "the look-up failed".
    """Redis did not answer, or not as it should; nothing is known about the pool then."""


class Lookup:
    """Look-ups in the projection of one fleet. Every method raises LookupFailed when Redis does not answer.

    `chance` gives the random number in [0, 1) of each pick.
    """

    def __init__(
        self,
        client: Client,
        *,
        namespace: str,
        prefix: str = DEFAULT_PREFIX,
        chance: Callable[[], float] = _RANDOM.random,
    ) -> None:
        self._client = client
        self._keys = FleetKeys(prefix, namespace)
        self._chance = chance
        self._functions = Functions(client, may_load=False)
        self._resolved: dict[str, str] = {}

    @classmethod
    def from_url(
        cls,
        url: str,
        *,
        namespace: str,
        prefix: str = DEFAULT_PREFIX,
        cluster: bool = False,
        timeout: float = TIMEOUT_SECONDS,
    ) -> Lookup:
        """Make one for a URL `redis[s]://[user[:password]@]host[:port]`; `timeout` in seconds.

        `cluster`: the server is a Redis Cluster of more than one shard. Raises ValueError for an unreadable URL.
        """
        client = connect(url, cluster=cluster, timeout=timeout, read_retries=1)
        return cls(client, namespace=namespace, prefix=prefix)

    async def pick(self, pool: str, *, exclude: Collection[str] = ()) -> Picked | NoMember:
        """Pick a node: uniformly of the Ready ones, when there is none of the Suspect ones, never a Draining one."""
        return await self._pick(pool, "", exclude)

    async def pick_key(self, generator: str, key: str, *, exclude: Collection[str] = ()) -> Picked | NoMember:
        """Pick a node of the pool that a generator made for a key, such as `zh-en`.

        One round trip, two for a key not met before: the pool's name is remembered, and Redis checks it in the pick.
        """
        field = entry(generator, key)
        known = self._resolved.get(field)
        if known:
            found = await self._pick(known, field, exclude)
            if isinstance(found, Picked) or found.reason is not Reason.POOL_UNKNOWN:
                return found
        name = await self._resolve(field)
        return await self._pick(name or field, field, exclude)

    async def _resolve(self, field: str) -> str | None:
        with self._errors():
            found = await self._client.execute_command("HGET", self._keys.index, field)
        if found is None:
            self._resolved.pop(field, None)
            return None
        if len(self._resolved) >= _MAX_RESOLVED:
            self._resolved.clear()
        self._resolved[field] = text(found)
        return self._resolved[field]

    async def capability(self, node: str) -> Capability | None:
        """Return what a node can do, None for one that the projection does not know."""
        with self._errors():
            fresh, flat = await self._functions.read("capability", (self._keys.meta, self._keys.node(node)))
            fields = {text(name): text(value) for name, value in zip(flat[::2], flat[1::2], strict=True)}
            if not fields:
                return None
            types = {kind: type_state(value) for kind, value in fields.items() if not kind.startswith(".")}
            return Capability(node, types, *freshness(fresh))

    async def transitions(self, node: str) -> tuple[Transition, ...]:
        """Return what changed about a node lately, newest first, at most ten; nothing for one that is not known.

        For people: Redis alone holds it, so a flush loses it.
        """
        with self._errors():
            found = await self._client.execute_command("LRANGE", self._keys.history(node), 0, KEPT - 1)
            return tuple(decoded(text(entry)) for entry in found)

    async def members(self, pool: str) -> Members:
        """Return all members of a pool: for people and tests, a pick does not need it."""
        with self._errors():
            fresh, version, *lists = await self._functions.read("members", (self._keys.meta, *self._keys.pool(pool)))
            ready, suspect, draining = (tuple(sorted(map(text, names))) for names in lists)
            return Members(int(version) if version else None, ready, suspect, draining, *freshness(fresh))

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _pick(self, pool: str, field: str, exclude: Collection[str]) -> Picked | NoMember:
        keys = (self._keys.meta, *self._keys.pool(pool))
        with self._errors():
            reply = await self._functions.read("pick", keys, [repr(self._chance()), field, *exclude])
            return answer(pool, reply)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (RedisError, OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            hint = f" (no library {LIBRARY}: has an operator reached this Redis?)" if is_missing(error) else ""
            raise LookupFailed(describe(error, self._client) + hint) from None
