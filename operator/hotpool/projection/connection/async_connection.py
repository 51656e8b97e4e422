"""Connections to Redis as the projection needs them, and its error texts without secrets.

It must not import anything that a dispatcher does not have.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias, cast

from redis._parsers import AsyncCommandsParser
from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.connection import ConnectionPool, parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool, SentinelManagedConnection
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError

from hotpool.projection.connection.config import TIMEOUT_SECONDS, RedisConnectionConfig, keys_of, redacted
from hotpool.projection.connection.credentials import Credentials, FreshConnection, FreshSentinelConnection

if TYPE_CHECKING:
    from collections.abc import Sequence

Client: TypeAlias = Redis | RedisCluster


def connect(
    url: str,
    *,
    cluster: bool = False,
    sentinels: Sequence[str] = (),
    credentials: Credentials | None = None,
    timeout: float = TIMEOUT_SECONDS,
    read_retries: int = 0,
) -> Client:
    """Return a client for a URL `redis://`, `rediss://` (TLS) or `unix://`, with ACL user and password in it.

    The rest as in Reach. Nothing is connected yet. Nothing is ever sent twice, unless `read_retries` is given, which is
    for clients that only read: a lost connection is then tried again. Raises ValueError, without the URL, for one that
    cannot be read.
    """
    reach = RedisConnectionConfig(url, sentinels, credentials or Credentials(), timeout)
    retry = Retry(NoBackoff(), read_retries, supported_errors=(RedisConnectionError,))
    try:
        settings = reach.settings(parse_url) | {"retry": retry}
        if reach.secure:
            settings["connection_class"] = FreshConnection
        if sentinels:
            return _by_sentinels(reach, settings)
        return _to_cluster(settings) if cluster else Redis.from_pool(ConnectionPool(**settings))
    except (ValueError, TypeError, LookupError):
        reach.unreadable()


def _to_cluster(settings: dict[str, Any]) -> RedisCluster:
    """A shard of others that is away is no matter of ours: our keys are all in one slot (E4)."""
    kind = settings.pop("connection_class", None)
    client = RedisCluster(**settings, ssl=kind is FreshConnection, require_full_coverage=False)
    client.commands_parser = _KnownPlaces()
    if kind:
        client.connection_kwargs["connection_class"] = kind
        for node in client.startup_nodes:
            node.connection_class = kind
    return client


class _KnownPlaces(AsyncCommandsParser):
    """The keys of a command by `keys_of`."""

    async def initialize(self, node: object = None) -> None:
        """Nothing is to be asked."""

    async def get_keys(self, *args: Any) -> tuple[str, ...] | None:
        """Return the keys of a command, None for none."""
        return keys_of(args)


class _Watched(Redis):
    """A client of whatever the sentinels call the master, which closes its connections to them, too."""

    sentinels: Sequence[Redis] = ()

    async def aclose(self, close_connection_pool: bool | None = None) -> None:  # noqa: FBT001 - redis' own.
        await super().aclose(close_connection_pool)
        for sentinel in self.sentinels:
            await sentinel.aclose()


def _by_sentinels(reach: RedisConnectionConfig, settings: dict[str, Any]) -> Redis:
    for name in ("connection_class", "host", "port"):
        settings.pop(name, None)
    sentinel: Any = Sentinel(reach.addresses, sentinel_kwargs=reach.for_sentinels(settings))  # type: ignore[no-untyped-call]
    for one in sentinel.sentinels if reach.secure else ():
        one.connection_pool.connection_class = FreshConnection
    kind = FreshSentinelConnection if reach.secure else SentinelManagedConnection
    pool: Any = SentinelConnectionPool(reach.service, sentinel, connection_class=kind, **settings)  # type: ignore[no-untyped-call]
    client = cast("_Watched", _Watched.from_pool(pool))
    client.sentinels = sentinel.sentinels
    return client


def describe(error: BaseException, client: Client) -> str:
    """Return kind and text of an error, with the client's password taken out of it."""
    return redacted(
        error,
        client.connection_kwargs if isinstance(client, RedisCluster) else client.connection_pool.connection_kwargs,
    )
