"""Connections to Redis as the projection needs them, and its error texts without secrets.

Called by __main__ (for the writer) and by the look-up. It must not import anything that a dispatcher does not have.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias, cast
from urllib.parse import urlsplit

from redis._parsers import AsyncCommandsParser
from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.connection import ConnectionPool, parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool, SentinelManagedConnection
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError

from hotpool.projection.credentials import Credentials, FreshConnection, FreshSentinelConnection, PasswordFile

if TYPE_CHECKING:
    from collections.abc import Sequence

Client: TypeAlias = Redis | RedisCluster

TIMEOUT_SECONDS = 2.0
_SENTINEL_PORT = 26_379
_FORM = "redis[s]://[user[:password]@]host[:port][/db]"


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

    `sentinels`: `host:port` of each; the host of the URL is then the name of the service that they watch. `credentials`
    come before those of the URL. Nothing is connected yet. `timeout` (seconds) bounds the connection and each answer.
    Nothing is ever sent twice, unless `read_retries` is given, which is for clients that only read: a lost connection
    is then tried again. Raises ValueError, without the URL, for one that cannot be read.
    """
    credentials = credentials or Credentials()
    if credentials.ca and not url.startswith("rediss:"):
        raise ValueError("a file of certificates is for TLS: the URL of Redis must begin with rediss://")
    retry = Retry(NoBackoff(), read_retries, supported_errors=(RedisConnectionError,))
    common: dict[str, Any] = {"encoding_errors": "surrogateescape"}  # A name that the audit found is sent as it was.
    common |= {"socket_timeout": timeout, "socket_connect_timeout": timeout, "retry": retry, "health_check_interval": 0}
    try:
        settings = _settings_of(url, credentials) | common
        if sentinels:
            settings["host"] = urlsplit(url).netloc.rpartition("@")[2].partition(":")[0]  # as written, not lower case
            return _by_sentinels(sentinels, settings, credentials.sentinel_password)
        return _to_cluster(settings) if cluster else Redis.from_pool(ConnectionPool(**settings))
    except (ValueError, TypeError, LookupError):
        raise ValueError(f"the URL of Redis cannot be read: {_FORM}") from None


def _settings_of(url: str, credentials: Credentials) -> dict[str, Any]:
    settings: dict[str, Any] = {**parse_url(url)}
    if url.startswith("rediss:"):
        settings["connection_class"] = FreshConnection
    if credentials.ca:
        settings["ssl_ca_certs"] = credentials.ca
    if credentials.user:
        settings["username"] = credentials.user
    if credentials.password:
        settings.pop("password", None)
        settings["credential_provider"] = PasswordFile(settings.pop("username", None), credentials.password)
    return settings


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


def keys_of(words: Sequence[Any]) -> tuple[Any, ...] | None:
    """Where the keys are in what we send: numbered in a call of a function, else the first word; None for none.

    For clients of a cluster. redis-py would ask a node for each call of a function, with all of its arguments: a round
    trip more, and a node that is away would stop what is not its own.
    """
    if words[0] in {"FCALL", "FCALL_RO"}:
        return tuple(words[3 : 3 + int(words[2])])
    return tuple(words[1:2]) or None


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


def _by_sentinels(addresses: Sequence[str], settings: dict[str, Any], password: str | None) -> Redis:
    secure = settings.pop("connection_class", None) is FreshConnection
    service = settings.pop("host")
    settings.pop("port", None)
    theirs = {
        name: value for name, value in settings.items() if name.startswith(("socket_", "ssl_")) or name == "retry"
    }
    if password:
        theirs["credential_provider"] = PasswordFile(None, password)
    sentinel: Any = Sentinel(  # type: ignore[no-untyped-call]
        [_address(text) for text in addresses], sentinel_kwargs={**theirs, "ssl": secure}
    )
    for one in sentinel.sentinels if secure else ():
        one.connection_pool.connection_class = FreshConnection
    kind = FreshSentinelConnection if secure else SentinelManagedConnection
    pool: Any = SentinelConnectionPool(service, sentinel, connection_class=kind, **settings)  # type: ignore[no-untyped-call]
    client = cast("_Watched", _Watched.from_pool(pool))
    client.sentinels = sentinel.sentinels
    return client


def _address(text: str) -> tuple[str, int]:
    host, _, port = text.strip().rpartition(":")
    return host.strip("[]") or text.strip(), int(port) if host else _SENTINEL_PORT


def _settings(client: Client) -> dict[str, Any]:
    return client.connection_kwargs if isinstance(client, RedisCluster) else client.connection_pool.connection_kwargs


def describe(error: BaseException, client: Client) -> str:
    """Return kind and text of an error, with the client's password taken out of it."""
    text = f"{type(error).__name__}: {error}"
    settings = _settings(client)
    provider = settings.get("credential_provider")
    secret = provider.secret if isinstance(provider, PasswordFile) else settings.get("password")
    return text.replace(secret, "***") if isinstance(secret, str) and secret else text


def text(value: object) -> str:
    """Return what Redis answered as text, whether the client decodes or not; what is not UTF-8 becomes a mark."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
