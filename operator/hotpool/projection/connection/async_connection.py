"""Asynchronous connections to Redis and calls by them, and error texts without secrets.

Must not import anything that a dispatcher does not have.
"""

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any, TypeAlias, cast

from redis._parsers import AsyncCommandsParser
from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.connection import ConnectionPool, parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool, SentinelManagedConnection
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError

from hotpool.projection.connection.config import TIMEOUT_SECONDS, RedisConnectionConfig, command_keys, describe_redacted
from hotpool.projection.connection.credentials import Credentials, ReloadingConnection, ReloadingSentinelConnection

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

    The other parameters are those of RedisConnectionConfig. Does not connect yet. No command is sent twice, unless
    `read_retries` is given for a client that only reads: it retries after a lost connection. Raises ValueError, without
    the URL, for an invalid one.
    """
    config = RedisConnectionConfig(url, sentinels, credentials or Credentials(), timeout)
    retry = Retry(NoBackoff(), read_retries, supported_errors=(RedisConnectionError,))
    try:
        settings = config.settings(parse_url) | {"retry": retry}
        if config.secure:
            settings["connection_class"] = ReloadingConnection
        if sentinels:
            return _sentinel_client(config, settings)
        return _cluster_client(settings) if cluster else Redis.from_pool(ConnectionPool(**settings))
    except (ValueError, TypeError, LookupError):
        config.raise_unreadable()


def _cluster_client(settings: dict[str, Any]) -> RedisCluster:
    """Return a cluster client that tolerates unreachable other shards, because all our keys are in one slot (E4)."""
    kind = settings.pop("connection_class", None)
    client = RedisCluster(**settings, ssl=kind is ReloadingConnection, require_full_coverage=False)
    client.commands_parser = _KeyParser()
    if kind:
        client.connection_kwargs["connection_class"] = kind
        for node in client.startup_nodes:
            node.connection_class = kind
    return client


class _KeyParser(AsyncCommandsParser):
    """Key parser that needs no query to a server."""

    async def initialize(self, node: object = None) -> None:
        """Do nothing: no query is needed."""

    async def get_keys(self, *args: Any) -> tuple[str, ...] | None:
        """Return the keys of a command, None for none."""
        return command_keys(args)


class _SentinelClient(Redis):
    """A client of the master that the sentinels name. It also closes the connections to the sentinels."""

    sentinels: Sequence[Redis] = ()

    async def aclose(self, close_connection_pool: bool | None = None) -> None:  # noqa: FBT001 - signature of redis.
        await super().aclose(close_connection_pool)
        for sentinel in self.sentinels:
            await sentinel.aclose()


def _sentinel_client(config: RedisConnectionConfig, settings: dict[str, Any]) -> Redis:
    kind = ReloadingSentinelConnection if config.secure else SentinelManagedConnection
    plain = ReloadingConnection if config.secure else None
    pool, sentinels = config.sentinel_pool(Sentinel, SentinelConnectionPool, kind, plain, settings)
    client = cast("_SentinelClient", _SentinelClient.from_pool(pool))
    client.sentinels = sentinels
    return client


async def cancellable(call: Awaitable[Any]) -> Any:
    """Await a call of redis.asyncio, which a cancellation always ends. Raises its errors.

    redis-py awaits each send by asyncio.wait_for, which before Python 3.12 drops a cancellation that comes as the send
    ends (python/cpython#86296), and may raise another error in place of it.
    """
    task = asyncio.current_task()
    before = task.cancelling() if task else 0
    try:
        return await call
    finally:
        if task and task.cancelling() > before:
            raise asyncio.CancelledError


def describe(error: BaseException, client: Client) -> str:
    """Return class and text of an error, with the client's password replaced."""
    return describe_redacted(
        error,
        client.connection_kwargs if isinstance(client, RedisCluster) else client.connection_pool.connection_kwargs,
    )
