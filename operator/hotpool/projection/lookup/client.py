"""The asyncio look-up client: which node for this pool, in one round trip, from any replica (E6).

Called by dispatchers, through hotpool.lookup. It must not import what the operator needs: redis and the standard
library are enough. blocking.py is the same for programs without asyncio.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from hotpool.projection.connection.async_connection import Client, connect, describe
from hotpool.projection.lookup.base import BaseLookup
from hotpool.projection.lookup.protocol import FAILURES, LookupUnavailableError, advice

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType
    from typing import Unpack

    from hotpool.core.node_history import Transition
    from hotpool.projection.connection.credentials import Credentials
    from hotpool.projection.lookup.pick_options import PickOptions
    from hotpool.projection.lookup.protocol import Steps, T
    from hotpool.projection.lookup.results import Capability, Members, NoMember, Picked, Reservation


class Lookup(BaseLookup[Client]):
    """Look-ups in the projection of one fleet. Every method raises LookupUnavailableError when Redis does not answer.

    `client`: any of redis.asyncio. The rest, and from_url, as in Asking.
    """

    @classmethod
    def _connect(
        cls, url: str, *, cluster: bool, sentinels: Sequence[str], credentials: Credentials | None, timeout: float
    ) -> Client:
        return connect(
            url, cluster=cluster, sentinels=sentinels, credentials=credentials, timeout=timeout, read_retries=1
        )

    async def pick(self, pool: str, **how: Unpack[PickOptions]) -> Picked | NoMember:
        """Pick a node of a pool, in one round trip. The keywords are those of How; ValueError for wrong ones.

        Of the Ready members by the strategy, of the Suspect ones when no Ready one is left, never a Draining one.
        """
        return await self._answer(self._protocol.pick(pool, how))

    async def pick_key(self, generator: str, pair: str, /, **how: Unpack[PickOptions]) -> Picked | NoMember:
        """Pick a node of the pool that a generator made for a pair (or other key), such as `zh-en`; else as pick.

        One round trip, two for a pair not met before: the pool's name is remembered, and Redis checks it in the pick.
        """
        return await self._answer(self._protocol.pick_key(generator, pair, how))

    async def release(self, reservation: Reservation | str) -> bool:
        """Give a reservation back, by itself or its id; False for one not known (any more), which is harmless."""
        return await self._answer(self._protocol.release(reservation))

    async def renew(self, reservation: Reservation | str, seconds: float) -> Reservation | None:
        """Hold a reservation for so many seconds from now; None for one that is not known (any more)."""
        return await self._answer(self._protocol.renew(reservation, seconds))

    async def report_load(self, loads: Mapping[str, float], *, source: str, seconds: float) -> None:
        """Say how loaded nodes are, for so many seconds: in the place of what this source said of them before.

        It adds to what others reserve and report; 0 takes a report back. `source`: who says so, such as a host.
        """
        await self._answer(self._protocol.report_load(loads, source, seconds))

    async def capability(self, node: str) -> Capability | None:
        """Return what a node can do, None for one that the projection does not know."""
        return await self._answer(self._protocol.capability(node))

    async def transitions(self, node: str) -> tuple[Transition, ...]:
        """Return what changed about a node lately, newest first, at most ten; nothing for one that is not known.

        For people: Redis alone holds it, so a flush loses it.
        """
        return await self._answer(self._protocol.transitions(node))

    async def members(self, pool: str) -> Members:
        """Return all members of a pool: for people and tests, a pick does not need it."""
        return await self._answer(self._protocol.members(pool))

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _answer(self, steps: Steps[T]) -> T:
        try:
            words = next(steps)
            while True:
                words = steps.send(await self._client.execute_command(*words))
        except StopIteration as end:
            found: T = end.value
            return found
        except FAILURES as error:
            raise LookupUnavailableError(describe(error, self._client) + advice(error)) from None
