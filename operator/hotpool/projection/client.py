"""Connections to Redis as the projection needs them, and its error texts without secrets.

Called by __main__ (for the writer) and by the look-up. It must not import anything that a dispatcher does not have.
"""

from __future__ import annotations

from typing import TypeAlias

from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError

Client: TypeAlias = Redis | RedisCluster

TIMEOUT_SECONDS = 2.0


def connect(url: str, *, cluster: bool = False, timeout: float = TIMEOUT_SECONDS, read_retries: int = 0) -> Client:
    """Return a client for a URL `redis://`, `rediss://` (TLS) or `unix://`, with ACL user and password in it.

    Nothing is connected yet. `timeout` (seconds) bounds the connection and each answer. Nothing is ever sent twice,
    unless `read_retries` is given, which is for clients that only read: a lost connection is then tried again.
    Raises ValueError, without the URL, for one that cannot be read.
    """
    retry = Retry(NoBackoff(), read_retries, supported_errors=(RedisConnectionError,))
    kind: type[Client] = RedisCluster if cluster else Redis
    try:
        client: Client = kind.from_url(
            url, socket_timeout=timeout, socket_connect_timeout=timeout, retry=retry, health_check_interval=0
        )
    except (ValueError, TypeError):
        raise ValueError("the URL of Redis cannot be read: redis[s]://[user[:password]@]host[:port][/db]") from None
    return client


def _settings(client: Client) -> dict[str, object]:
    return client.connection_kwargs if isinstance(client, RedisCluster) else client.connection_pool.connection_kwargs


def describe(error: BaseException, client: Client) -> str:
    """Return kind and text of an error, with the client's password taken out of it."""
    text = f"{type(error).__name__}: {error}"
    secret = _settings(client).get("password")
    return text.replace(secret, "***") if isinstance(secret, str) and secret else text


def text(value: object) -> str:
    """Return what Redis answered as text, whether the client decodes or not; what is not UTF-8 becomes a mark."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)
