"""Errors of redis as the three errors that every sink has, and the reasons that only this one knows.

It must not let the password of the URL into a text.
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

from hotpool.errors import FencedError, RejectedError, RetryableError, WriteError

_REFUSED = (AuthenticationError, AuthorizationError, NoPermissionError)
_AWAY = (
    RedisConnectionError,
    RedisTimeoutError,
    OSError,
    AskError,  # Also MOVED: a subclass.
    BusyLoadingError,
    ClusterDownError,
    MasterDownError,
    ReadOnlyError,
    RedisClusterException,
    TryAgainError,
)
_AWAY_CODES = frozenset({"BUSY", "MISCONF", "NOREPLICAS", "NOSTAGE", "READONLY", "UNKILLABLE"})
_DENIED = ("denied", "the ACL of Redis denies its user a right")
_DENIED_INSIDE = ("ACL failure in script", "The user executing the script can't")  # of Valkey and later Redis; of 7.0
_KINDS: tuple[tuple[tuple[type[BaseException], ...], tuple[str, str]], ...] = (
    ((OutOfMemoryError,), ("full", "Redis is full (maxmemory)")),
    ((ReadOnlyError,), ("replica", "this Redis is a read-only replica, writes need its master")),
    ((BusyLoadingError,), ("loading", "Redis is loading its data")),
    ((AuthenticationError, AuthorizationError), ("password", "Redis does not accept the user or the password")),
    ((NoPermissionError,), _DENIED),
    ((RedisTimeoutError, TimeoutError), ("slow", "Redis did not answer in time")),
    ((ClusterDownError, MasterDownError, RedisClusterException), ("cluster", "the Redis Cluster is not whole")),
    ((RedisConnectionError, OSError), ("away", "Redis cannot be reached")),
)
_CODES = {
    "OTHERCLUSTER": (
        "shared",
        (
            "another cluster writes to this Redis under the same prefix and namespace: "
            "give one of them another --redis-prefix"
        ),
    ),
    "NOTERM": ("unclaimed", "Redis has lost the projection"),
    "STALETERM": ("unclaimed", "Redis knows another leader"),
    "MISCONF": ("disk", "Redis cannot save to its disk and refuses writes"),
    "BUSY": ("busy", "Redis is busy with somebody's script"),
    "NOREPLICAS": ("replicas", "Redis has too few replicas and refuses writes"),
}


class TermNotClaimedError(RetryableError):
    """This server knows no term, or one older than ours (flushed, replaced, restored): claim it, then send again."""


class RedisFullError(RetryableError):
    """Redis is full (maxmemory) and did nothing."""


class OtherClusterError(RejectedError):
    """Another cluster's projection lives under our keys: nothing was written."""


class VersionConflictError(RetryableError):
    """Redis holds the same or a newer version of this name in our term; `version` is the one it holds."""

    def __init__(self, message: str, version: int) -> None:
        super().__init__(message)
        self.version = version


class BaseMismatchError(VersionConflictError):
    """Redis does not hold what a change was to build on, and nothing was done: send the whole image."""


def explain(error: BaseException) -> tuple[str, str]:
    """Return a word for the metric and, in plain words, what is wrong with Redis."""
    if isinstance(error, RedisClusterException) and error.__cause__:
        error = error.__cause__  # what the last of its nodes answered
    code = str(error).partition(" ")[0]
    if code in _CODES:
        return _CODES[code]
    if str(error).startswith(_DENIED_INSIDE):
        return _DENIED
    return next((words for kinds, words in _KINDS if isinstance(error, kinds)), ("other", "Redis refuses"))


def translate(error: BaseException, message: str, term: int, cluster: str = "") -> WriteError:
    """Return the sink error for what redis raised; `message` is its text without secrets, `term` and `cluster` ours."""
    code, _, rest = str(error).partition(" ")
    if code == "OTHERCLUSTER":
        return OtherClusterError(message)
    if code == "NOTERM":
        return TermNotClaimedError(message)
    if code == "STALETERM":
        stored, _, theirs = rest.partition(" ")
        if theirs and theirs != cluster:
            return OtherClusterError(message)
        return FencedError(message) if int(stored) > term else TermNotClaimedError(message)
    if code == "STALEVERSION":
        return VersionConflictError(message, int(rest))
    if code == "STALEBASE":
        return BaseMismatchError(message, int(rest))
    if isinstance(error, OutOfMemoryError):
        return RedisFullError(message)
    if isinstance(error, _REFUSED):
        return RejectedError(message)
    if isinstance(error, _AWAY) or (isinstance(error, ResponseError) and code in _AWAY_CODES):
        return RetryableError(message)
    return RejectedError(message)
