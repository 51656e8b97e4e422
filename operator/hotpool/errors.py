"""The ways in which a write to a sink fails, the same for Kubernetes and Redis.

Raised by the sinks, handled by the reconciler. It must not import a sink or a client library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hotpool.core.model import Kind


class WriteError(Exception):
    """A write to a sink did not succeed; the text holds no secret."""


class RetryableError(WriteError):
    """The outcome is unknown or the sink is away: try again, with a whole replacement."""


class StaleError(RetryableError):
    """What the write built on is not what is stored: read the object `kind`/`name`, then plan again."""

    def __init__(self, message: str, kind: Kind, name: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.name = name


class RejectedError(WriteError):
    """The sink said no: trying the same again is pointless."""


class NotLeaderError(RejectedError):
    """Our time as leader is over: nothing was sent."""


class FencedError(RejectedError):
    """Another writer has a higher term: stop writing."""
