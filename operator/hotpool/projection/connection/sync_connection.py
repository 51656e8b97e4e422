"""Synchronous connections to Redis, equivalent to async_connection.py.

Must not import anything that a dispatcher does not have.
"""

import socket
from collections.abc import Sequence
from typing import Any, TypeAlias, cast

from redis import Redis
from redis._parsers import CommandsParser
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.connection import Connection, ConnectionPool, SSLConnection, parse_url
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelConnectionPool, SentinelManagedConnection

from hotpool.projection.connection.config import TIMEOUT_SECONDS, RedisConnectionConfig, command_keys, describe_redacted
from hotpool.projection.connection.credentials import Credentials, tls_context

SyncClient: TypeAlias = Redis | RedisCluster


def connect(
    url: str,
    *,
    cluster: bool = False,
    sentinels: Sequence[str] = (),
    credentials: Credentials | None = None,
    timeout: float = TIMEOUT_SECONDS,
) -> SyncClient:
    """Return a client that only reads, as async_connection.connect. A cluster is connected here and may raise."""
    config = RedisConnectionConfig(url, sentinels, credentials or Credentials(), timeout)
    retry = Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,))
    try:
        settings = config.settings(parse_url) | {"retry": retry}
        if sentinels:
            return _sentinel_client(config, settings)
    except (ValueError, TypeError, LookupError):
        config.raise_unreadable()
    return _cluster_client(config, settings) if cluster else Redis.from_pool(_ReloadingPool(**settings))


class ReloadingConnection(SSLConnection):
    """Synchronous equivalent of credentials.ReloadingConnection."""

    def _wrap_socket_with_ssl(self, sock: socket.socket) -> Any:
        if not self.ca_certs:
            return super()._wrap_socket_with_ssl(sock)  # type: ignore[no-untyped-call]
        context = tls_context(self.ca_certs, self, self.certificate_password)
        return context.wrap_socket(sock, server_hostname=self.host)


class ReloadingSentinelConnection(SentinelManagedConnection, ReloadingConnection):
    """A ReloadingConnection to the master that the sentinels name."""


class _ReloadingPool(ConnectionPool):
    """A pool that uses ReloadingConnection for TLS."""

    def __init__(self, connection_class: type = Connection, **settings: Any) -> None:
        kind = ReloadingConnection if issubclass(connection_class, SSLConnection) else connection_class
        super().__init__(connection_class=kind, **settings)


def _cluster_client(config: RedisConnectionConfig, settings: dict[str, Any]) -> RedisCluster:
    """Return a cluster client. Its URL has only the address, because redis-py prefers the URL to the credentials."""
    if "path" in settings:
        config.raise_unreadable()
    host, port = settings.pop("host", "localhost"), settings.pop("port", 6379)
    for name in ("connection_class", "db"):
        settings.pop(name, None)
    constructor: Any = RedisCluster
    address = f"[{host}]" if ":" in host else host
    client = cast(
        "RedisCluster",
        constructor(
            url=f"redis{'s' if config.secure else ''}://{address}:{port}",
            connection_pool_class=_ReloadingPool,
            require_full_coverage=False,
            **settings,
        ),
    )
    client.commands_parser = _KeyParser(client)  # type: ignore[no-untyped-call]
    return client


class _KeyParser(CommandsParser):
    """Key parser that needs no query to a server."""

    def initialize(self, r: object) -> None:
        """Do nothing: no query is needed."""

    def get_keys(self, redis_conn: object, *args: Any) -> list[Any] | None:  # noqa: ARG002 - signature of redis.
        """Return the keys of a command, None for none."""
        found = command_keys(args)
        return list(found) if found else None


class _SentinelClient(Redis):
    """A client of the master that the sentinels name. It also closes the connections to the sentinels."""

    sentinels: Sequence[Redis] = ()

    def close(self) -> None:
        super().close()
        for sentinel in self.sentinels:
            sentinel.close()


def _sentinel_client(config: RedisConnectionConfig, settings: dict[str, Any]) -> Redis:
    kind = ReloadingSentinelConnection if config.secure else SentinelManagedConnection
    plain = ReloadingConnection if config.secure else None
    pool, sentinels = config.sentinel_pool(Sentinel, SentinelConnectionPool, kind, plain, settings)
    client = cast("_SentinelClient", _SentinelClient.from_pool(pool))
    client.sentinels = sentinels
    return client


def describe(error: BaseException, client: SyncClient) -> str:
    """Return class and text of an error, with the client's password replaced."""
    return describe_redacted(error, client.get_connection_kwargs())
