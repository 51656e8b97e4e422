"""Errors of a write, the same for Kubernetes and Redis. Must not import a writer or a client library.

WriteError
  x RetryableError
    - StaleError
  x RejectedError
    - NotLeaderError
    - FencedError
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hotpool.core.model import Kind


class WriteError(Exception):
    """Failure of a write. Its text contains no secret."""


class RetryableError(WriteError):
    """Failure with an unknown outcome, or an unreachable target: retry with a complete replacement."""


class UnavailableError(RetryableError):
    """Failure that is not of one object: no write to the target can succeed now."""


class StaleError(RetryableError):
    """Failure because the write was based on an outdated object: read `kind`/`name`, then plan again."""

    def __init__(self, message: str, kind: Kind, name: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.name = name


class RejectedError(WriteError):
    """Refusal by the target: the same write would fail again."""


class NotLeaderError(RejectedError):
    """End of our leadership: nothing was sent."""


class FencedError(RejectedError):
    """Higher term of another writer: stop writing."""
