"""The synchronous look-up client, with the same methods and results as client.py (E6).

Must need only redis and the standard library.
"""

import threading
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Literal, Self, Unpack

from redis.exceptions import RedisClusterException, RedisError

from hotpool.core.node_history import Transition
from hotpool.projection.connection.sync_connection import SyncClient, connect, describe
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
from hotpool.projection.lookup.sync_wait_room import SyncWaitRoom
from hotpool.projection.lookup.wait_protocol import MAX_SYNC_BLOCK_MS, block_ms


class SyncLookup(BaseLookup[SyncClient, SyncWaitRoom]):
    """Synchronous equivalent of Lookup. As thread-safe as `client`, which is any synchronous client of redis."""

    _semaphore = threading.BoundedSemaphore

    @classmethod
    def _connect(cls, url: str, **options: Any) -> SyncClient:
        try:
            return connect(url, **options)
        except (RedisError, RedisClusterException, OSError) as error:
            raise LookupUnavailableError(f"{type(error).__name__}: cannot connect to the Redis Cluster") from None

    def pick(self, pool: str | Sequence[str], **options: Unpack[PickOptions]) -> Picked | NoMember:
        """As Lookup.pick."""
        if "wait" in options:
            return self._room.pick(self._protocol.call_pools(pool, options), options["wait"])
        return self._run(self._protocol.pick(pool, options))

    def pick_key(
        self, generator: str, pair: str | Sequence[str], /, **options: Unpack[PickOptions]
    ) -> Picked | NoMember:
        """As Lookup.pick_key."""
        if "wait" in options:
            return self._room.pick(self._protocol.call_keys(generator, pair, options), options["wait"])
        return self._run(self._protocol.pick_key(generator, pair, options))

    def release(
        self,
        reservation: Reservation | str,
        *,
        failed: FailureKind | Literal[False] | None = None,
        types: Collection[str] | None = None,
    ) -> bool:
        """As Lookup.release."""
        return self._run(self._protocol.release(reservation, failed, types))

    def report_failure(
        self, picked: Picked | Reservation, kind: FailureKind = "unreachable", *, types: Collection[str] | None = None
    ) -> ReportEffect:
        """As Lookup.report_failure."""
        return self._run(self._protocol.report(picked, kind, types))

    def report_success(self, picked: Picked | Reservation, *, types: Collection[str] | None = None) -> ReportEffect:
        """As Lookup.report_success."""
        return self._run(self._protocol.report(picked, False, types))

    def renew(self, reservation: Reservation | str, seconds: float) -> Reservation | None:
        """As Lookup.renew."""
        return self._run(self._protocol.renew(reservation, seconds))

    def report_load(self, loads: Mapping[str, float], *, source: str, seconds: float) -> None:
        """As Lookup.report_load."""
        self._run(self._protocol.report_load(loads, source, seconds))

    def capability(self, node: str) -> Capability | None:
        """As Lookup.capability."""
        return self._run(self._protocol.capability(node))

    def transitions(self, node: str) -> tuple[Transition, ...]:
        """As Lookup.transitions."""
        return self._run(self._protocol.transitions(node))

    def histories(self, nodes: Sequence[str]) -> dict[str, tuple[Transition, ...]]:
        """As Lookup.histories."""
        found: dict[str, tuple[Transition, ...]] = {}
        try:
            for batch in in_pipelines(nodes):
                with self._slots:
                    pipeline = self._client.pipeline(transaction=False)
                    for node in batch:
                        pipeline.execute_command(*self._protocol.call_history(node))
                    replies = pipeline.execute()
                found.update(zip(batch, map(parse_history, replies), strict=True))
        except FAILURES as error:
            raise LookupUnavailableError(self._explain(error)) from None
        if nodes and not any(found.values()):
            self.capability(nodes[0])  # fails if no operator writes to this Redis
        return found

    def ejections(self) -> tuple[Ejection, ...]:
        """As Lookup.ejections."""
        return self._run(self._protocol.ejections())

    def members(self, pool: str) -> Members:
        """As Lookup.members."""
        return self._run(self._protocol.members(pool))

    def close(self) -> None:
        """Close the connections. Picks that wait raise LookupUnavailableError."""
        self._room.close()
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open_room(self) -> SyncWaitRoom:
        return SyncWaitRoom(
            self._protocol, self._run, self._send, block_ms(self._client.get_connection_kwargs(), MAX_SYNC_BLOCK_MS)
        )

    def _send(self, words: CommandArgs) -> Any:
        return self._client.execute_command(*words)  # type: ignore[no-untyped-call]

    def _run(self, steps: Steps[T]) -> T:
        try:
            words = next(steps)
            while True:
                try:
                    with self._slots:
                        reply = self._client.execute_command(*words)  # type: ignore[no-untyped-call]
                except FAILURES as error:
                    words = steps.throw(error)
                else:
                    words = steps.send(reply)
        except StopIteration as end:
            result: T = end.value
            return result
        except FAILURES as error:
            raise LookupUnavailableError(self._explain(error)) from None

    def _explain(self, error: BaseException) -> str:
        """Return the text of a failure. If the server has no functions, ask it for its version."""
        if not lacks_functions(error):
            return failure_text(error, describe(error, self._client))
        info = None
        with suppress(*FAILURES):
            info = self._client.execute_command(*VERSION_COMMAND)  # type: ignore[no-untyped-call]
        return too_old_text(info)
