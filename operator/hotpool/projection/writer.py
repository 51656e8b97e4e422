"""Writer of the projection: whole documents or changes of them, fenced by term and ordered by version.

Must not decide membership, retry on its own, or write without leadership. Each method is one write. Overlapping
writes of one name are safe: the later wins. Raises RetryableError (TermNotClaimedError: call claim, then send again),
RejectedError, NotLeaderError (nothing was sent) and FencedError (stop).
"""

import asyncio
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import chain
from typing import Any

from redis.exceptions import RedisClusterException, RedisError

from hotpool.core.drain import Ledger
from hotpool.errors import NotLeaderError
from hotpool.leadership import Leadership
from hotpool.observability.metrics import POOL_WRITES, REDIS_FAILURES
from hotpool.projection.accepted_writes import AcceptedWrites, WriteStamp
from hotpool.projection.connection.async_connection import Client, describe
from hotpool.projection.connection.config import to_text
from hotpool.projection.documents import MembershipChange, NodeDocument, PoolDocument, encode_exceptions
from hotpool.projection.drift_check import DriftCheck, DriftReport
from hotpool.projection.drift_rotation import Rotation
from hotpool.projection.failures import Ejection, operator_commands, parse_ejections
from hotpool.projection.functions import Functions
from hotpool.projection.keys import DEFAULT_PREFIX, FleetKeys, scored_members
from hotpool.projection.ledger import NODES_PER_CALL, merge_ledgers, parse_ledger
from hotpool.projection.redis_errors import (
    BaseMismatchError,
    RedisFullError,
    TermNotClaimedError,
    VersionConflictError,
    failure_reason,
    translate,
)
from hotpool.projection.slots import slot_status_commands
from hotpool.projection.stored_state import read_digests, read_pool, scan_on
from hotpool.projection.use import Use, parse_refused, parse_slots
from hotpool.projection.waiting import operator_wait_commands, parse_waiters

MEMBERS_PER_CALL = 250
"""Limit per call. Redis inserts so many in half a millisecond, and the call blocks the server."""
MAX_CHANGED_FRACTION = 0.25
"""A change of a larger fraction of the members costs about as much as the whole document (docs/design/0005)."""
REQUEST_SECONDS = 2.4
"""Time limit of a write with its connection. It ends before another leader may take over (WRITE_RESERVE)."""
CHECK_SECONDS = 60.0
STAGING_TTL_MS = 60_000
STAMP_TTL_MS = 60_000
"""Time without claim or stamp after which another cluster's projection is taken over."""

Arguments = list[str | int | float]


class RedisWriter:
    """One fleet's projection, written by the leader.

    `leadership` is asked before each write.
    """

    def __init__(self, client: Client, leadership: Leadership, *, namespace: str, prefix: str = DEFAULT_PREFIX) -> None:
        self._client = client
        self._keys = FleetKeys(prefix, namespace)
        self._leadership = leadership
        self._functions = Functions(client, may_load=True)
        self._owner = secrets.token_hex(8)  # Distinguishes two processes with the same term.
        self._term = 0
        self._cluster = ""
        self._pool_writes = AcceptedWrites()
        self._node_writes = AcceptedWrites()
        self._rotation = Rotation()
        self.endpoints_denied: tuple[str, ...] = ()
        """Rights that this user lacks on the keys of endpoints, as of the last claim. If any, none is written."""
        self.failures_denied: tuple[str, ...] = ()
        """Rights that this user lacks on the keys of failures, as of the last claim. If any, these are not touched."""
        self.slots_denied: tuple[str, ...] = ()
        """Rights that this user lacks on the keys of slots. If any, those who reserve purge expired slots alone."""
        self.waiting_denied: tuple[str, ...] = ()
        """Rights that this user lacks on the keys of waiting picks. If any, these are not woken by writes."""
        self._documents: dict[str, PoolDocument] = {}
        """Pool → document of the last accepted write, the base of the next change."""

    async def claim(self, term: int, cluster: str = "") -> int:
        """Claim `term`: Redis then refuses all other writers. Return `term`, or a larger number if it is too small.

        The larger number is the stored term, or `term` + 1 if another process claimed `term`. The next claim needs a
        term above it. Also loads the library if it is missing. `cluster`: id of our cluster. Raises OtherClusterError
        if the projection of another cluster is in use.
        """
        self._cluster = cluster
        self.endpoints_denied = await self.missing_rights()
        await self.check_dispatch_rights()
        owner: Arguments = [term, self._owner, cluster, STAMP_TTL_MS]
        reply = await self._send("claim", self._with_endpoints(self._keys.meta), owner, claimed=False)
        stored, ours = int(reply[0]), bool(reply[1])
        if not ours:
            return max(stored, term + 1)
        self._term = term
        return term

    async def missing_rights(self) -> tuple[str, ...]:
        """Return a line `COMMAND key` for each right on the keys of endpoints that our user lacks. A dry call."""
        keys = self._keys.endpoints, self._keys.services("any")
        return tuple(map(to_text, await self._send("missing_rights", (self._keys.meta,), keys, claimed=False)))

    async def check_dispatch_rights(self) -> None:
        """Note the rights on the keys of failures, slots and waiting picks that our user lacks. Three dry calls."""
        self.failures_denied = await self._denied(operator_commands(self._keys))
        self.slots_denied = await self._denied(slot_status_commands(self._keys))
        self.waiting_denied = await self._denied(operator_wait_commands(self._keys))

    async def _denied(self, commands: Sequence[str]) -> tuple[str, ...]:
        return tuple(map(to_text, await self._send("denied_commands", (self._keys.meta,), commands, claimed=False)))

    async def replace_pool(self, document: PoolDocument) -> None:
        """Replace a pool atomically for every reader (E2).

        If Redis holds our former document and little changed, only the change is sent. Redis refuses a change if it
        holds anything else. If Redis is full, at least departed members are removed, also those that a former leader
        wrote, and RedisFullError is raised.
        """
        base, former = self._pool_writes.last_accepted(document.name), self._documents.pop(document.name, None)
        known = former if base and former and base.digest == former.digest and document.is_of_pool(former) else None
        try:
            if not (base and known and await self._try_change(document, base, known)):
                await self._replace_whole(document)
        except RedisFullError:
            held = (base, known) if base and known else await self._read_pool(document)
            if held:
                self._pool_writes.record_refused(document.name, held[0])
                self._documents[document.name] = held[1]
                await self._remove_departed(document, *held)
            raise

    async def _try_change(self, document: PoolDocument, base: WriteStamp, former: PoolDocument) -> bool:
        """Send only the change. Return False if it is too large, or if Redis does not hold its base."""
        change = document.change_from(former)
        if change.size > min(MEMBERS_PER_CALL, MAX_CHANGED_FRACTION * document.size):
            return False
        with suppress(BaseMismatchError):
            await self._send_change(document, base, change)
            return True
        return False

    async def _remove_departed(self, document: PoolDocument, base: WriteStamp, former: PoolDocument) -> None:
        """Remove members that left or changed their state, and bar services that fail the pool. Additions wait (E5)."""
        departed = list(chain.from_iterable(document.change_from(former).removed))
        for first in range(0, len(departed) or 1, MEMBERS_PER_CALL):
            chunk = frozenset(departed[first : first + MEMBERS_PER_CALL])
            ready, suspect, draining = (members - chunk for members in former.members)
            reduced = replace(
                former, ready=ready, suspect=suspect, draining=draining, services=document.services, former=former
            )
            with suppress(BaseMismatchError):
                await self._send_change(reduced, base, reduced.change_from(former))
            accepted = self._pool_writes.last_accepted(document.name)
            if accepted is None or accepted.digest != reduced.digest:
                return  # another write came first
            base, former = accepted, reduced

    async def _read_pool(self, document: PoolDocument) -> tuple[WriteStamp, PoolDocument] | None:
        """Return the stored pool and its stamp. Return None if it changes meanwhile, or is not that of the document.

        A stored pool of the same name with another uid has no right member: it is deleted.
        """
        with self._errors():
            async with asyncio.timeout(REQUEST_SECONDS):
                stored = await read_pool(self._functions, self._keys, document)
        if stored is None or stored[1].uid == document.uid:
            return stored
        await self.drop_pool(document.name)
        return None

    async def _send_change(self, document: PoolDocument, base: WriteStamp, change: MembershipChange) -> None:
        with self._pool_writes.writing(document.name) as version:
            stamp = WriteStamp(self._term, version, document.digest)
            members = [*map(scored_members, change.added), *map(" ".join, change.removed)]
            services = [encode_exceptions(change.exceptions.items()), " ".join(change.dropped)]
            arguments = [
                *document.arguments(stamp.term, stamp.version, stamp.digest),
                base.term,
                base.version,
                base.digest,
                *members,
                *services,
            ]
            try:
                keys = (*self._pool_keys(document.name), *self._wakeup_keys())
                await self._send("change" if change.grows else "exchange", keys, arguments)
            except BaseMismatchError:
                if self._pool_writes.is_latest(document.name, version):
                    raise
                return  # A later write overtook this one, so this document is obsolete.
            self._record_accepted(document, stamp, "change")

    async def _replace_whole(self, document: PoolDocument) -> None:
        with self._pool_writes.writing(document.name) as version:
            stamp = WriteStamp(self._term, version, document.digest)
            if document.size <= MEMBERS_PER_CALL:
                members = map(scored_members, document.members)
                services = encode_exceptions(document.services.exceptions.items())
                arguments = [*document.arguments(stamp.term, stamp.version, stamp.digest), *members, services]
                keys = (*self._pool_keys(document.name), *self._wakeup_keys())
                await self._send("replace", keys, arguments)
            else:
                await self._replace_large(document, stamp)
            self._record_accepted(document, stamp, "whole")

    def _record_accepted(self, document: PoolDocument, stamp: WriteStamp, kind: str) -> None:
        POOL_WRITES.labels(kind).inc()
        self._pool_writes.record_accepted(document.name, stamp)
        if self._pool_writes.last_accepted(document.name) == stamp:
            self._documents[document.name] = document

    async def _replace_large(self, document: PoolDocument, stamp: WriteStamp) -> None:
        *staged, staged_services = self._keys.staged(document.name, stamp.term, stamp.version)
        for key, members in zip(staged, document.members, strict=True):
            names = list(members)
            for first in range(0, len(names), MEMBERS_PER_CALL):
                chunk = scored_members(names[first : first + MEMBERS_PER_CALL])
                await self._send("stage", (self._keys.meta, key), [stamp.term, STAGING_TTL_MS, chunk])
        exceptions = list(document.services.exceptions.items())
        for first in range(0, len(exceptions), MEMBERS_PER_CALL):
            arguments: Arguments = [
                stamp.term,
                STAGING_TTL_MS,
                encode_exceptions(exceptions[first : first + MEMBERS_PER_CALL]),
            ]
            await self._send("stage_services", (self._keys.meta, staged_services), arguments)
        meta, pools, index, *names = self._pool_keys(document.name)
        keys = [meta, pools, index, *names[:4], *staged, *names[4:], *([staged_services] if names[4:] else [])]
        keys += self._wakeup_keys()
        await self._send("swap", keys, [*document.arguments(stamp.term, stamp.version, stamp.digest), len(exceptions)])

    async def drop_pool(self, name: str) -> None:
        """Delete a pool and its index field."""
        with self._pool_writes.writing(name) as version:
            self._documents.pop(name, None)
            await self._send("drop_pool", self._pool_keys(name), [self._term, version, name])
            self._pool_writes.record_dropped(name)

    async def drop_index(self, fields: Iterable[str]) -> None:
        """Delete fields of the index that have no pool."""
        names = list(fields)
        for first in range(0, len(names), MEMBERS_PER_CALL):
            chunk = names[first : first + MEMBERS_PER_CALL]
            await self._send("drop_index", (self._keys.meta, self._keys.index), [self._term, *chunk])

    async def replace_node(self, document: NodeDocument, exceptions: Mapping[str, str] | None = None) -> None:
        """Replace a node's capability (E3) and its endpoints.

        `exceptions`: pool → services of the node that meet it (PoolServices), for pools that not all of them meet. They
        are set in the same moment, so that no pick of such a pool answers a service that is new.

        If Redis is full, a node that it holds is replaced all the same unless the new content is much larger.
        """
        with self._node_writes.writing(document.name) as version:
            stamp = WriteStamp(self._term, version, document.digest)
            fields = [part for field in document.fields().items() for part in field]
            pools = {} if self.endpoints_denied else exceptions or {}
            arguments: Arguments = [stamp.term, stamp.version, document.name, stamp.digest, document.endpoints]
            arguments += [len(pools), *pools.values(), *fields]
            keys = [*self._node_keys(document.name)]
            keys += [key for pool in pools for key in (self._keys.pool(pool)[0], self._keys.services(pool))]
            keys += (*self._failure_keys(), *(self._wakeup_keys() if self._failure_keys() else ()))
            try:
                await self._send("replace_node", keys, arguments)
            except RedisFullError:
                if not await self._send("exchange_node", keys, arguments):
                    raise
            self._node_writes.record_accepted(document.name, stamp)

    async def drop_node(self, name: str, *, delete_history: bool = True) -> None:
        """Delete a node's capability, but not its memberships, which are part of the pools.

        Without `delete_history`, the history expires after a week.
        """
        with self._node_writes.writing(name) as version:
            keys = [*self._node_keys(name), *self._failure_keys()]
            await self._send("drop_node", keys, [self._term, version, name, int(delete_history)])
            self._node_writes.record_dropped(name)

    async def append_history(self, name: str, transitions: Sequence[str]) -> None:
        """Append transitions, oldest first, to the history of a node, after its capability was written (F2)."""
        keys = (self._keys.meta, self._keys.node(name), self._keys.history(name))
        await self._send("append_history", keys, [self._term, *transitions])

    async def stamp(self, *, complete: bool) -> Use:
        """Store the time, by the clock of Redis, and whether the projection is complete (E2).

        Purge expired loads, and return the use of the fleet since the last call.
        """
        slots = () if self.slots_denied else self._keys.slots
        keys = (self._keys.meta, *self._keys.load, *slots, *(self._wakeup_keys() if slots else ()))
        numbers, cursor, page = await self._send("stamp", keys, [self._term, int(complete)])
        refused = parse_refused(self._keys.pool("")[0], numbers)
        if not slots:
            return Use(None, refused)
        with self._errors():
            async with asyncio.timeout(REQUEST_SECONDS):
                fields = await scan_on(self._functions, "hash", slots[0], (cursor, page))
        return Use(parse_slots(fields), refused)

    async def ejections(self) -> tuple[Ejection, ...]:
        """Return the ejected services, and delete records that have had no report for an hour."""
        if self.failures_denied:
            return ()
        return parse_ejections(
            to_text(await self._send("ejections", (self._keys.meta, *self._keys.failures), [self._term]))
        )

    async def waiters(self) -> dict[str, int]:
        """Return the number of waiting picks by pool, as of the last 15 s."""
        if self.waiting_denied:
            return {}
        return parse_waiters(await self._send("waiters", (self._keys.meta, self._keys.waiting[1]), [self._term]))

    async def read_ledger(self, rank: int, nodes: Sequence[str]) -> Ledger:
        """Return the reservations and the use of these nodes (C5). `rank`: of further entries that are looked at."""
        chunks = [nodes[first : first + NODES_PER_CALL] for first in range(0, len(nodes) or 1, NODES_PER_CALL)]
        replies = [await self._send("ledger", self._keys.load, [rank, *chunk]) for chunk in chunks]
        return merge_ledgers([parse_ledger(reply, chunk) for reply, chunk in zip(replies, chunks, strict=True)])

    async def stored_digests(self) -> tuple[dict[str, str], dict[str, str]]:
        """Return name → digest of the stored pools and nodes."""
        with self._errors():
            async with asyncio.timeout(CHECK_SECONDS):
                return await read_digests(self._functions, self._keys)

    async def check_drift(self, pools: Mapping[str, PoolDocument], nodes: Mapping[str, NodeDocument]) -> DriftReport:
        """Compare Redis with all documents of the fleet (E1). Writes nothing, but loads a missing library.

        Writes of this process must be stored exactly. Those of a former leader only need the same content.
        """
        with self._errors():
            check = DriftCheck(
                self._functions,
                self._keys,
                self._pool_writes,
                self._node_writes,
                self._rotation,
                endpoints=not self.endpoints_denied,
            )
            async with asyncio.timeout(CHECK_SECONDS):
                result = await check.run(self._term, pools, nodes)
        for name, document in pools.items():
            accepted = self._pool_writes.last_accepted(name)
            if name not in self._documents and accepted and accepted.digest == document.digest:
                self._documents[name] = document  # written by a former leader, and equal
        return result

    def _pool_keys(self, name: str) -> Sequence[str]:
        keys = self._keys
        services = () if self.endpoints_denied else (keys.services(name),)
        return (keys.meta, keys.pools, keys.index, *keys.pool(name), *services)

    def _node_keys(self, name: str) -> Sequence[str]:
        keys = self._keys
        return self._with_endpoints(keys.meta, keys.nodes, keys.node(name), keys.history(name))

    def _failure_keys(self) -> Sequence[str]:
        """Return the key whose ejections end with a change of a node. Without endpoints it has no place in the call."""
        return () if self.endpoints_denied or self.failures_denied else self._keys.failures[:1]

    def _wakeup_keys(self) -> Sequence[str]:
        """Return the key of the stream that wakes waiting picks. Without endpoints it has no place in the calls."""
        return () if self.endpoints_denied or self.waiting_denied else self._keys.waiting[:1]

    def _with_endpoints(self, *keys: str) -> Sequence[str]:
        return keys if self.endpoints_denied else (*keys, self._keys.endpoints)

    async def _send(
        self, name: str, keys: Sequence[str], arguments: Sequence[str | int | float], *, claimed: bool = True
    ) -> Any:
        if not self._leadership.may_write():
            raise NotLeaderError("leadership has ended; nothing was sent to Redis")
        if claimed and not self._term:
            raise TermNotClaimedError("no term claimed yet")
        with self._errors():
            async with asyncio.timeout(REQUEST_SECONDS):
                return await self._functions.call(name, keys, arguments)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (RedisError, RedisClusterException, OSError) as error:  # RedisClusterException is no RedisError
            label, reason = failure_reason(error)
            REDIS_FAILURES.labels(label).inc()
            message = reason if reason == str(error) else f"{reason} ({describe(error, self._client)})"
            translated = translate(error, message, self._term, self._cluster)
            if isinstance(translated, VersionConflictError):
                self._pool_writes.observe_version(translated.version)
                self._node_writes.observe_version(translated.version)
            raise translated from None
