"""The look-up client for programs without asyncio: the same questions and answers as lookup.py (E6).

Called by dispatchers, through hotpool.lookup. It must not import what the operator needs: redis and the standard
library are enough.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from redis import Redis
from redis._parsers import CommandsParser
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.retry import Retry

from hotpool.projection.client import TIMEOUT_SECONDS, keys_of
from hotpool.projection.keys import DEFAULT_PREFIX
from hotpool.projection.questions import FAILURES, LookupFailed, Questions, hint

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType
    from typing import Unpack

    from hotpool.core.story.transitions import Transition
    from hotpool.projection.answers import Capability, Members, NoMember, Picked, Reservation
    from hotpool.projection.choice import How
    from hotpool.projection.questions import Steps, T

SyncClient: TypeAlias = Redis | RedisCluster


class SyncLookup:
    """As Lookup, blocking, and as safe between threads as `client`, which is any client of redis."""

    def __init__(
        self,
        client: SyncClient,
        *,
        namespace: str,
        prefix: str = DEFAULT_PREFIX,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._client = client
        self._questions = Questions(namespace=namespace, prefix=prefix, chance=chance)

    @classmethod
    def from_url(
        cls,
        url: str,
        *,
        namespace: str,
        prefix: str = DEFAULT_PREFIX,
        cluster: bool = False,
        timeout: float = TIMEOUT_SECONDS,
    ) -> Self:
        """As Lookup.from_url; with `cluster` it connects at once, and raises LookupFailed where it cannot."""
        return cls(_connect(url, cluster=cluster, timeout=timeout), namespace=namespace, prefix=prefix)

    def pick(self, pool: str, **how: Unpack[How]) -> Picked | NoMember:
        """As Lookup.pick."""
        return self._answer(self._questions.pick(pool, how))

    def pick_key(self, generator: str, pair: str, /, **how: Unpack[How]) -> Picked | NoMember:
        """As Lookup.pick_key."""
        return self._answer(self._questions.pick_key(generator, pair, how))

    def release(self, reservation: Reservation | str) -> bool:
        """As Lookup.release."""
        return self._answer(self._questions.release(reservation))

    def renew(self, reservation: Reservation | str, seconds: float) -> Reservation | None:
        """As Lookup.renew."""
        return self._answer(self._questions.renew(reservation, seconds))

    def report_load(self, loads: Mapping[str, float], *, source: str, seconds: float) -> None:
        """As Lookup.report_load."""
        self._answer(self._questions.report_load(loads, source, seconds))

    def capability(self, node: str) -> Capability | None:
        """As Lookup.capability."""
        return self._answer(self._questions.capability(node))

    def transitions(self, node: str) -> tuple[Transition, ...]:
        """As Lookup.transitions."""
        return self._answer(self._questions.transitions(node))

    def members(self, pool: str) -> Members:
        """As Lookup.members."""
        return self._answer(self._questions.members(pool))

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _answer(self, steps: Steps[T]) -> T:
        try:
            words = next(steps)
            while True:
                words = steps.send(self._client.execute_command(*words))  # type: ignore[no-untyped-call]
        except StopIteration as end:
            found: T = end.value
            return found
        except FAILURES as error:
            raise LookupFailed(_told(error, self._client) + hint(error)) from None


def _connect(url: str, *, cluster: bool, timeout: float) -> SyncClient:
    retry = Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,))
    kind: type[SyncClient] = RedisCluster if cluster else Redis
    try:
        client: SyncClient = kind.from_url(
            url, socket_timeout=timeout, socket_connect_timeout=timeout, retry=retry, health_check_interval=0
        )
    except (ValueError, TypeError):
        raise ValueError("the URL of Redis cannot be read: redis[s]://[user[:password]@]host[:port][/db]") from None
    except FAILURES as error:
        raise LookupFailed(f"{type(error).__name__}: no cluster answers") from None
    if isinstance(client, RedisCluster):
        client.commands_parser = _KnownPlaces(client)  # type: ignore[no-untyped-call]
    return client


class _KnownPlaces(CommandsParser):
    """The keys of a command by `keys_of`."""

    def initialize(self, r: object) -> None:
        """Nothing is to be asked."""

    def get_keys(self, redis_conn: object, *args: Any) -> list[Any] | None:  # noqa: ARG002 - redis' own.
        """Return the keys of a command, None for none."""
        found = keys_of(args)
        return list(found) if found else None


def _told(error: BaseException, client: SyncClient) -> str:
    text = f"{type(error).__name__}: {error}"
    secret = client.get_connection_kwargs().get("password")
    return text.replace(secret, "***") if isinstance(secret, str) and secret else text
