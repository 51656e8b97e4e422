"""Errors of redis as the three errors that every sink has, and the reasons that only this one knows.

Called by the writer. It must not let the password of the URL into a text.
"""

from __future__ import annotations

from redis.exceptions import (
    AskError,
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from hotpool.sinks.errors import Fenced, Rejected, Retryable, SinkError

_REFUSED = (AuthenticationError, AuthorizationError, NoPermissionError)
_AWAY = (
    RedisConnectionError,
    RedisTimeoutError,
    OSError,
    AskError,  # Also MOVED: a subclass.
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    TryAgainError,
)
_AWAY_CODES = frozenset({"BUSY", "MISCONF", "NOREPLICAS", "NOSTAGE", "OOM", "READONLY", "UNKILLABLE"})


class Unclaimed(Retryable):
    """This server knows no term, or one older than ours (flushed, replaced, restored): claim it, then send again."""


class Outdated(Retryable):
    """Redis holds the same or a newer version of this name in our term; `version` is the one it holds."""

    def __init__(self, message: str, version: int) -> None:
        super().__init__(message)
        self.version = version


def translate(error: BaseException, message: str, term: int) -> SinkError:
    """Return the sink error for what redis raised; `message` is its text without secrets, `term` is ours."""
    code, _, rest = str(error).partition(" ")
    if code == "NOTERM":
        return Unclaimed(message)
    if code == "STALETERM":
        return Fenced(message) if int(rest) > term else Unclaimed(message)
    if code == "STALEVERSION":
        return Outdated(message, int(rest))
    if isinstance(error, _REFUSED):
        return Rejected(message)
    if isinstance(error, _AWAY) or (isinstance(error, ResponseError) and code in _AWAY_CODES):
        return Retryable(message)
    return Rejected(message)
