"""The sink that keeps Redis equal to what the reconciler gives it: whole images, fenced by term, ordered by version.

It must not decide about membership, retry on its own, or write while `leader()` is false. Each method is one write;
overlapping writes of one name are safe, the later wins. Errors: Retryable (Unclaimed: call claim, then send again),
Rejected (NotLeader: nothing was sent), Fenced: stop.
"""

from __future__ import annotations

import asyncio
import secrets
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisClusterException, RedisError, ResponseError

from hotpool.errors import NotLeaderError
from hotpool.observability.metrics import POOL_WRITES, REDIS_FAILURES
from hotpool.projection.accepted_writes import AcceptedWrites, WriteStamp
from hotpool.projection.connection.async_connection import describe
from hotpool.projection.drift_check import DriftCheck, DriftReport, Rotation, whole
from hotpool.projection.functions import Functions
from hotpool.projection.keys import DEFAULT_PREFIX, FleetKeys, scored
from hotpool.projection.redis_errors import (
    BaseMismatchError,
    RedisFullError,
    TermNotClaimedError,
    VersionConflictError,
    explain,
    translate,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from hotpool.projection.connection.async_connection import Client
    from hotpool.projection.documents import Change, NodeDocument, PoolDocument

MEMBERS_PER_CALL = 250
"""Redis takes half a millisecond to put in so many, and answers nobody else meanwhile."""
CHANGED_PART = 0.25
"""A change of more than this part of a pool's members costs about as much as the whole image (docs/design/0005)."""
REQUEST_SECONDS = 2.4
"""A write with its connection ends before leadership may have gone to another (election.WRITE_RESERVE)."""
CHECK_SECONDS = 60.0
STAGING_TTL_MS = 60_000
STAMP_TTL_MS = 60_000
"""Another cluster's projection that was not claimed or stamped for this long is taken over."""

Arguments = list[str | int | float]


class RedisWriter:
    """One fleet's projection, written by the leader.

    `leader` is asked before each write: it says whether our time as leader, with room for one write, still runs.
    """

    def __init__(
        self, client: Client, *, namespace: str, leader: Callable[[], bool], prefix: str = DEFAULT_PREFIX
    ) -> None:
        self._client = client
        self._keys = FleetKeys(prefix, namespace)
        self._leader = leader
        self._functions = Functions(client, may_load=True)
        self._owner = secrets.token_hex(8)  # Two processes that came to one term are still told apart.
        self._term = 0
        self._cluster = ""
        self._pools = AcceptedWrites()
        self._nodes = AcceptedWrites()
        self._turns = Rotation()
        self._documents: dict[str, PoolDocument] = {}
        """Pool → the image of the write that stands in the ledger: what a change builds on."""

    async def stored_term(self) -> int:
        """Return the term that Redis knows, 0 for none: read before an election's winner chooses its own."""
        with self._errors():
            try:
                return whole(await self._client.execute_command("HGET", self._keys.meta, "term") or "") or 0
            except ResponseError as error:
                if str(error).startswith("WRONGTYPE"):
                    return 0
                raise

    async def claim(self, term: int, cluster: str = "") -> int:
        """Make Redis refuse all other writers from now on; return `term`, or a larger number when it is too small.

        A larger number is known to Redis, or `term` was claimed by another process: choose one larger than that.
        Also sees to it that the library is loaded. `cluster` tells whose projection this is: raises OtherCluster where
        that of another is alive.
        """
        self._cluster = cluster
        reply = await self._send("claim", (self._keys.meta,), [term, self._owner, cluster, STAMP_TTL_MS], claimed=False)
        stored, ours = int(reply[0]), bool(reply[1])
        if not ours:
            return max(stored, term + 1)
        self._term = term
        return term

    async def replace_pool(self, image: PoolDocument) -> None:
        """Put a pool's whole image in the place of what is there, at once for every reader (E2).

        Where Redis is known to hold our former image and little changed, only that is sent; Redis refuses it if it
        holds anything else. A Redis that is full gets at least who left, and Full is raised.
        """
        base, former = self._pools.last_accepted(image.name), self._documents.pop(image.name, None)
        known = former if base and former and base.digest == former.digest and _same_pool(image, former) else None
        try:
            if not (base and known and await self._changed(image, base, known)):
                await self._replace_whole(image)
        except RedisFullError:
            if base and known:
                self._pools.refused(image.name, base)
                self._documents[image.name] = known
                await self._withdraw(image, base, known)
            raise

    async def _changed(self, image: PoolDocument, base: WriteStamp, former: PoolDocument) -> bool:
        """Send what changed; False where that is too much, or Redis did not hold what it builds on."""
        change = image.change_from(former)
        if change.size > min(MEMBERS_PER_CALL, CHANGED_PART * sum(map(len, image.members))):
            return False
        with suppress(BaseMismatchError):
            await self._change(image, base, change)
            return True
        return False

    async def _withdraw(self, image: PoolDocument, base: WriteStamp, former: PoolDocument) -> None:
        """Take out who is in no image or in another state now, as many as one call may; who came has to wait (E5)."""
        left = frozenset(islice(chain.from_iterable(image.change_from(former).removed), MEMBERS_PER_CALL))
        ready, suspect, draining = (members - left for members in former.members)
        rest = replace(former, ready=ready, suspect=suspect, draining=draining, former=former)
        if left:
            with suppress(BaseMismatchError):
                await self._change(rest, base, rest.change_from(former))

    async def _change(self, image: PoolDocument, base: WriteStamp, change: Change) -> None:
        with self._pools.writing(image.name) as version:
            mark = WriteStamp(self._term, version, image.digest)
            members = [*map(scored, change.added), *map(" ".join, change.removed)]
            arguments = [*_pool_arguments(image, mark), base.term, base.version, base.digest, *members]
            try:
                await self._send("change" if change.grows else "exchange", self._pool_keys(image.name), arguments)
            except BaseMismatchError:
                if self._pools.is_last(image.name, version):
                    raise
                return  # a later write passed this one: the image is not wanted any more
            self._wrote(image, mark, "change")

    async def _replace_whole(self, image: PoolDocument) -> None:
        with self._pools.writing(image.name) as version:
            mark = WriteStamp(self._term, version, image.digest)
            if sum(map(len, image.members)) <= MEMBERS_PER_CALL:
                members = map(scored, image.members)
                await self._send("replace", self._pool_keys(image.name), [*_pool_arguments(image, mark), *members])
            else:
                await self._replace_large(image, mark)
            self._wrote(image, mark, "whole")

    def _wrote(self, image: PoolDocument, mark: WriteStamp, how: str) -> None:
        POOL_WRITES.labels(how).inc()
        self._pools.wrote(image.name, mark)
        if self._pools.last_accepted(image.name) == mark:
            self._documents[image.name] = image

    async def _replace_large(self, image: PoolDocument, mark: WriteStamp) -> None:
        staged = self._keys.staged(image.name, mark.term, mark.version)
        for key, members in zip(staged, image.members, strict=True):
            names = list(members)
            for first in range(0, len(names), MEMBERS_PER_CALL):
                chunk = scored(names[first : first + MEMBERS_PER_CALL])
                await self._send("stage", (self._keys.meta, key), [mark.term, STAGING_TTL_MS, chunk])
        await self._send("swap", (*self._pool_keys(image.name), *staged), _pool_arguments(image, mark))

    async def drop_pool(self, name: str, uid: str | None = None) -> None:
        """Remove a pool with its index entry; with `uid`, only if it is the pool that is there."""
        with self._pools.writing(name) as version:
            self._documents.pop(name, None)
            await self._send("drop_pool", self._pool_keys(name), [self._term, version, name, uid or ""])
            self._pools.dropped(name)

    async def drop_index(self, fields: Iterable[str]) -> None:
        """Remove fields of the index that the audit found to point nowhere."""
        names = list(fields)
        for first in range(0, len(names), MEMBERS_PER_CALL):
            chunk = names[first : first + MEMBERS_PER_CALL]
            await self._send("drop_index", (self._keys.meta, self._keys.index), [self._term, *chunk])

    async def replace_node(self, image: NodeDocument, happened: Sequence[str] = ()) -> None:
        """Put a node's whole capability in the place of what is there (E3), and add to its history, oldest first."""
        with self._nodes.writing(image.name) as version:
            mark = WriteStamp(self._term, version, image.digest)
            fields = [part for field in image.fields().items() for part in field]
            arguments: Arguments = [mark.term, mark.version, image.name, mark.digest, len(happened), *happened, *fields]
            await self._send("replace_node", self._node_keys(image.name), arguments)
            self._nodes.wrote(image.name, mark)

    async def drop_node(self, name: str, happened: Sequence[str] = (), *, forget: bool = True) -> None:
        """Remove a node's capability; its memberships are its pools' matter.

        `forget`: its history, too; else that is added to, and kept for a week.
        """
        with self._nodes.writing(name) as version:
            arguments: Arguments = [self._term, version, name, int(forget), *happened]
            await self._send("drop_node", self._node_keys(name), arguments)
            self._nodes.dropped(name)

    async def stamp(self, *, complete: bool) -> None:
        """Say that the projection is alive now, by the clock of Redis, and whether all of it is there (E2)."""
        await self._send("stamp", (self._keys.meta, *self._keys.load), [self._term, int(complete)])

    async def check_drift(self, pools: Mapping[str, PoolDocument], nodes: Mapping[str, NodeDocument]) -> DriftReport:
        """Compare what Redis says with these images (E1), all of the fleet; it writes nothing but a lost library.

        What this process wrote must be there as written; what an earlier leader wrote only needs to be the same.
        """
        with self._errors():
            audit = DriftCheck(self._functions, self._keys, self._pools, self._nodes, self._turns)
            async with asyncio.timeout(CHECK_SECONDS):
                result = await audit.run(self._term, pools, nodes)
        for name, image in pools.items():
            standing = self._pools.last_accepted(name)
            if name not in self._documents and standing and standing.digest == image.digest:
                self._documents[name] = image  # a former leader's, found right
        return result

    def _pool_keys(self, name: str) -> Sequence[str]:
        return (self._keys.meta, self._keys.pools, self._keys.index, *self._keys.pool(name))

    def _node_keys(self, name: str) -> Sequence[str]:
        return (self._keys.meta, self._keys.nodes, self._keys.node(name), self._keys.history(name))

    async def _send(self, name: str, keys: Sequence[str], arguments: Arguments, *, claimed: bool = True) -> Any:
        if not self._leader():
            raise NotLeaderError("our time as leader is over, nothing was sent to Redis")
        if claimed and not self._term:
            raise TermNotClaimedError("no term claimed yet")
        with self._errors():
            async with asyncio.timeout(REQUEST_SECONDS):
                return await self._functions.call(name, keys, arguments)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (RedisError, RedisClusterException, OSError) as error:  # the second is none of the first
            word, plain = explain(error)
            REDIS_FAILURES.labels(word).inc()
            message = f"{plain} ({describe(error, self._client)})"
            failure = translate(error, message, self._term, self._cluster)
            if isinstance(failure, VersionConflictError):
                self._pools.learn(failure.version)
                self._nodes.learn(failure.version)
            raise failure from None


def _same_pool(image: PoolDocument, other: PoolDocument) -> bool:
    return (image.uid, image.generator, image.key) == (other.uid, other.generator, other.key)


def _pool_arguments(image: PoolDocument, mark: WriteStamp) -> Arguments:
    return [
        mark.term,
        mark.version,
        image.name,
        image.uid,
        mark.digest,
        image.generator or "",
        image.key or "",
        *map(len, image.members),
    ]
