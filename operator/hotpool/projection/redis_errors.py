"""Translation of redis errors to errors of writes, and their reasons in plain words.

Must not let the password of the URL into a text.
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
from hotpool.projection.functions import TooOldError

_REJECTED = (AuthenticationError, AuthorizationError, NoPermissionError)
_RETRYABLE = (
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
_RETRYABLE_CODES = frozenset({"BUSY", "MISCONF", "NOREPLICAS", "NOSTAGE", "READONLY", "UNKILLABLE"})
_DENIED = ("denied", "the ACL of Redis denies its user a right")
_DENIED_IN_FUNCTION = (
    "ACL failure in script",
    "The user executing the script can't",
)  # Valkey and later Redis; Redis 7.0
_BY_TYPE: tuple[tuple[tuple[type[BaseException], ...], tuple[str, str]], ...] = (
    ((OutOfMemoryError,), ("full", "Redis is full (maxmemory)")),
    ((ReadOnlyError,), ("replica", "this Redis is a read-only replica, writes need its master")),
    ((BusyLoadingError,), ("loading", "Redis is loading its data")),
    ((AuthenticationError, AuthorizationError), ("password", "Redis does not accept the user or the password")),
    ((NoPermissionError,), _DENIED),
    ((RedisTimeoutError, TimeoutError), ("slow", "Redis did not answer in time")),
    ((ClusterDownError, MasterDownError, RedisClusterException), ("cluster", "the Redis Cluster is incomplete")),
    ((RedisConnectionError, OSError), ("away", "Redis cannot be reached")),
)
_BY_CODE = {
    "OTHERCLUSTER": (
        "shared",
        (
            "another cluster writes to this Redis under the same prefix and namespace: "
            "give one of them another --redis-prefix"
        ),
    ),
    "NOTERM": ("unclaimed", "Redis has lost the projection"),
    "STALETERM": ("unclaimed", "Redis has the term of another leader"),
    "MISCONF": ("disk", "Redis cannot save to its disk and refuses writes"),
    "BUSY": ("busy", "Redis is busy with a script"),
    "NOREPLICAS": ("replicas", "Redis has too few replicas and refuses writes"),
}


class TermNotClaimedError(RetryableError):
    """The server has no term or an older one (flushed, replaced, restored). Claim the term, then send again."""


class RedisFullError(RetryableError):
    """Redis is full (maxmemory). The write had no effect."""


class OtherClusterError(RejectedError):
    """Another cluster writes its projection to our keys. The write had no effect."""


class VersionConflictError(RetryableError):
    """Redis has the same or a newer version of this name in our term. `version`: the stored version."""

    def __init__(self, message: str, version: int) -> None:
        super().__init__(message)
        self.version = version


class BaseMismatchError(VersionConflictError):
    """Redis does not hold the base of a change. The write had no effect. Send the whole document."""


OF_ONE_NAME = (RedisFullError, VersionConflictError)
"""Errors of the write of one pool or node: other writes may succeed."""


def is_denied(error: BaseException) -> bool:
    """Return True if the ACL of Redis denies the user a command or a key, in a function too."""
    return isinstance(error, NoPermissionError) or str(error).startswith(_DENIED_IN_FUNCTION)


def failure_reason(error: BaseException) -> tuple[str, str]:
    """Return the value of the metric label `reason`, and the reason in plain words."""
    if isinstance(error, RedisClusterException) and error.__cause__:
        error = error.__cause__  # the error of the last node tried
    if isinstance(error, TooOldError):
        return "version", str(error)
    code = str(error).partition(" ")[0]
    if code in _BY_CODE:
        return _BY_CODE[code]
    if str(error).startswith(_DENIED_IN_FUNCTION):
        return _DENIED
    return next(
        (words for kinds, words in _BY_TYPE if isinstance(error, kinds)), ("other", "Redis refuses the command")
    )


def translate(error: BaseException, message: str, term: int, cluster: str = "") -> WriteError:
    """Return the write error for an error of redis. `message`: text without secrets. `term`, `cluster`: ours."""
    code, _, rest = str(error).partition(" ")
    if code == "OTHERCLUSTER":
        return OtherClusterError(message)
    if code == "NOTERM":
        return TermNotClaimedError(message)
    if code == "STALETERM":
        stored, _, stored_cluster = rest.partition(" ")
        if stored_cluster and stored_cluster != cluster:
            return OtherClusterError(message)
        return FencedError(message) if int(stored) > term else TermNotClaimedError(message)
    if code == "STALEVERSION":
        return VersionConflictError(message, int(rest))
    if code == "STALEBASE":
        return BaseMismatchError(message, int(rest))
    if isinstance(error, OutOfMemoryError):
        return RedisFullError(message)
    if isinstance(error, _REJECTED):
        return RejectedError(message)
    if isinstance(error, _RETRYABLE) or (isinstance(error, ResponseError) and code in _RETRYABLE_CODES):
        return RetryableError(message)
    return RejectedError(message)
