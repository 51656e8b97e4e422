"""The asynchronous look-up client: pick a node of a pool in one round trip, from any replica (E6).

Must need only redis and the standard library. sync_client.py is its equivalent for programs without asyncio.
"""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Literal, Self, Unpack

from redis.asyncio.cluster import RedisCluster

from hotpool.core.node_history import Transition
from hotpool.projection.connection.async_connection import Client, cancellable, connect, describe
from hotpool.projection.failures import Ejection
from hotpool.projection.functions import VERSION_COMMAND, CommandArgs, lacks_functions, too_old_text
from hotpool.projection.lookup.base import BaseLookup
from hotpool.projection.lookup.pick_options import PickOptions
from hotpool.projection.lookup.protocol import (
    FAILURES,
    LookupUnavailableError,
    failure_text,
    in_pipelines,
    parse_history,
)
from hotpool.projection.lookup.report_options import FailureKind
from hotpool.projection.lookup.results import Capability, Members, NoMember, Picked, ReportEffect, Reservation
from hotpool.projection.lookup.steps import Steps, T
from hotpool.projection.lookup.wait_protocol import block_ms
from hotpool.projection.lookup.wait_room import WaitRoom


class Lookup(BaseLookup[Client, WaitRoom]):
    """Look-ups in the projection of one fleet. Every method raises LookupUnavailableError if Redis does not answer.

    `client`: any client of redis.asyncio. The other parameters, and from_url, are those of BaseLookup. The first call
    binds a client to its event loop; a call in another one raises RuntimeError.
    """

    _semaphore = asyncio.Semaphore
    _loop: asyncio.AbstractEventLoop | None = None

    @classmethod
    def _connect(cls, url: str, **options: Any) -> Client:
        return connect(url, read_retries=1, **options)

    async def pick(self, pool: str | Sequence[str], **options: Unpack[PickOptions]) -> Picked | NoMember:
        """Pick a node of a pool, in one round trip. Raises ValueError or TypeError for invalid options.

        The strategy chooses among the Ready members, or the Suspect ones if no Ready one is left. Draining members are
        never picked.

        Several pools: the first one in order that has a node answers, in the same round trip; for a reservation, that
        has room. Without one, `NoMember.candidates` has the result of each.
        """
        if "wait" in options:
            return await self._room.pick(self._protocol.call_pools(pool, options), options["wait"])
        return await self._run(self._protocol.pick(pool, options))

    async def pick_key(
        self, generator: str, pair: str | Sequence[str], /, **options: Unpack[PickOptions]
    ) -> Picked | NoMember:
        """Pick a node of the pool that a generator made for a pair (or other key), such as `zh-en`. Otherwise as pick.

        One round trip, or two for a new pair: the pool's name is cached, and Redis checks it in the pick. Several
        pairs: as several pools.
        """
        if "wait" in options:
            return await self._room.pick(self._protocol.call_keys(generator, pair, options), options["wait"])
        return await self._run(self._protocol.pick_key(generator, pair, options))

    async def release(
        self,
        reservation: Reservation | str,
        *,
        failed: FailureKind | Literal[False] | None = None,
        types: Collection[str] | None = None,
    ) -> bool:
        """Release a reservation, given as object or id. Return False if it is unknown or expired, which is harmless.

        `failed`: report the outcome of its request in the same step, as report_failure with this kind, or, if False,
        as report_success. It needs the object.
        """
        return await self._run(self._protocol.release(reservation, failed, types))

    async def report_failure(
        self, picked: Picked | Reservation, kind: FailureKind = "unreachable", *, types: Collection[str] | None = None
    ) -> ReportEffect:
        """Report that a request to the picked services failed, so that all dispatchers pick them last.

        `unreachable` ejects a service at once, `error` after three in a row without a success between, for 30 s, then
        longer. `types`: types whose picked service failed. Default: all of `picked.endpoints`. Raises LookupError if
        the node was picked without an endpoint of one of these types.
        """
        return await self._run(self._protocol.report(picked, kind, types))

    async def report_success(
        self, picked: Picked | Reservation, *, types: Collection[str] | None = None
    ) -> ReportEffect:
        """Report that a request to the picked services succeeded, which ends an ejection.

        A dispatcher that reports failures must report successes too: its failures count only while it reaches nodes.
        """
        return await self._run(self._protocol.report(picked, False, types))

    async def renew(self, reservation: Reservation | str, seconds: float) -> Reservation | None:
        """Extend a reservation to `seconds` from now. Return None if it is lost.

        One that Redis has lost, or that has expired, is reserved again on its node if its services have room, unless it
        was released. An id alone does not tell node and services: it is then lost.
        """
        return await self._run(self._protocol.renew(reservation, seconds))

    async def report_load(self, loads: Mapping[str, float], *, source: str, seconds: float) -> None:
        """Report loads of nodes for `seconds`, replacing the previous reports of this source about these nodes.

        Reports add to reservations and to the reports of other sources; 0 removes a report. `source`: such as a host.
        """
        await self._run(self._protocol.report_load(loads, source, seconds))

    async def capability(self, node: str) -> Capability | None:
        """Return the capability of a node, or None if Redis has none of this node."""
        return await self._run(self._protocol.capability(node))

    async def transitions(self, node: str) -> tuple[Transition, ...]:
        """Return the last transitions of a node, newest first, at most ten; empty for an unknown node.

        For people: only Redis stores them, so a flush deletes them.
        """
        return await self._run(self._protocol.transitions(node))

    async def histories(self, nodes: Sequence[str]) -> dict[str, tuple[Transition, ...]]:
        """Return node → its last transitions, as `transitions`, in one round trip for each 500 nodes."""
        found: dict[str, tuple[Transition, ...]] = {}
        try:
            for batch in in_pipelines(nodes):
                async with self._slots:
                    pipeline = self._client.pipeline(transaction=False)
                    for node in batch:
                        pipeline.execute_command(*self._protocol.call_history(node))
                    replies = await cancellable(pipeline.execute())
                found.update(zip(batch, map(parse_history, replies), strict=True))
        except FAILURES as error:
            raise LookupUnavailableError(await self._explain(error)) from None
        if nodes and not any(found.values()):
            await self.capability(nodes[0])  # fails if no operator writes to this Redis
        return found

    async def ejections(self) -> tuple[Ejection, ...]:
        """Return the services that dispatchers reported as failing, for people and tests. A pick does not need it."""
        return await self._run(self._protocol.ejections())

    async def members(self, pool: str) -> Members:
        """Return all members of a pool, for people and tests. A pick does not need it."""
        return await self._run(self._protocol.members(pool))

    async def close(self) -> None:
        """Close the connections. Picks that wait raise LookupUnavailableError."""
        await self._room.close()
        await self._client.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _open_room(self) -> WaitRoom:
        client = self._client
        settings = (
            client.connection_kwargs if isinstance(client, RedisCluster) else client.connection_pool.connection_kwargs
        )
        return WaitRoom(self._protocol, self._run, self._send, block_ms(settings))

    async def _send(self, words: CommandArgs) -> Any:
        return await cancellable(self._client.execute_command(*words))

    async def _run(self, steps: Steps[T]) -> T:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        elif self._loop is not asyncio.get_running_loop():
            raise RuntimeError("this Lookup is bound to the event loop that used it first: create one for each loop")
        try:
            words = next(steps)
            while True:
                try:
                    async with self._slots:
                        reply = await cancellable(self._client.execute_command(*words))
                except FAILURES as error:
                    words = steps.throw(error)
                else:
                    words = steps.send(reply)
        except StopIteration as end:
            result: T = end.value
            return result
        except FAILURES as error:
            raise LookupUnavailableError(await self._explain(error)) from None

    async def _explain(self, error: BaseException) -> str:
        """Return the text of a failure. If the server has no functions, ask it for its version."""
        if not lacks_functions(error):
            return failure_text(error, describe(error, self._client))
        info = None
        with suppress(*FAILURES):
            info = await cancellable(self._client.execute_command(*VERSION_COMMAND))
        return too_old_text(info)
