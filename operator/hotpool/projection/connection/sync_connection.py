"""Connections to Redis for programs without asyncio: as client.py makes them for the others.

It must not import anything that a dispatcher does not have.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias, cast

from redis import Redis
from redis._parsers import CommandsParser
from redis.backoff import NoBackoff
from redis.cluster import RedisCluster
from redis.connection import Connection, ConnectionPool, SSLConnection, parse_url
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelConnectionPool, SentinelManagedConnection

from hotpool.projection.connection.config import TIMEOUT_SECONDS, RedisConnectionConfig, keys_of, redacted
from hotpool.projection.connection.credentials import Credentials, trusting

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

SyncClient: TypeAlias = Redis | RedisCluster


def connect(
    url: str,
    *,
    cluster: bool = False,
    sentinels: Sequence[str] = (),
    credentials: Credentials | None = None,
    timeout: float = TIMEOUT_SECONDS,
) -> SyncClient:
    """As client.connect for a client that only reads; only a cluster is connected at once, with its errors."""
    reach = RedisConnectionConfig(url, sentinels, credentials or Credentials(), timeout)
    retry = Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,))
    try:
        settings = reach.settings(parse_url) | {"retry": retry}
        if sentinels:
            return _by_sentinels(reach, settings)
    except (ValueError, TypeError, LookupError):
        reach.unreadable()
    return _to_cluster(reach, settings) if cluster else Redis.from_pool(_FreshPool(**settings))


class FreshConnection(SSLConnection):
    """As credentials.FreshConnection."""

    def _wrap_socket_with_ssl(self, sock: socket.socket) -> Any:
        if not self.ca_certs:
            return super()._wrap_socket_with_ssl(sock)  # type: ignore[no-untyped-call]
        context = trusting(self.ca_certs, self, self.certificate_password)
        return context.wrap_socket(sock, server_hostname=self.host)


class FreshSentinelConnection(SentinelManagedConnection, FreshConnection):
    """The same, to whatever the sentinels call the master."""


class _FreshPool(ConnectionPool):
    """Connections of our kind where TLS is spoken."""

    def __init__(self, connection_class: type = Connection, **settings: Any) -> None:
        kind = FreshConnection if issubclass(connection_class, SSLConnection) else connection_class
        super().__init__(connection_class=kind, **settings)


def _to_cluster(reach: RedisConnectionConfig, settings: dict[str, Any]) -> RedisCluster:
    """Not by redis' own reading of the URL, which would come before the credentials."""
    if "path" in settings:
        reach.unreadable()
    host, port = settings.pop("host", "localhost"), settings.pop("port", 6379)
    for name in ("connection_class", "db"):
        settings.pop(name, None)
    made: Any = RedisCluster
    address = f"[{host}]" if ":" in host else host
    client = cast(
        "RedisCluster",
        made(
            url=f"redis{'s' if reach.secure else ''}://{address}:{port}",
            connection_pool_class=_FreshPool,
            require_full_coverage=False,
            **settings,
        ),
    )
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


class _Watched(Redis):
    """A client of whatever the sentinels call the master, which closes its connections to them, too."""

    sentinels: Sequence[Redis] = ()

    def close(self) -> None:
        super().close()
        for sentinel in self.sentinels:
            sentinel.close()


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


def describe(error: BaseException, client: SyncClient) -> str:
    """Return kind and text of an error, with the client's password taken out of it."""
    return redacted(error, client.get_connection_kwargs())
