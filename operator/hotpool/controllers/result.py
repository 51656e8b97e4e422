"""Outcome of the reconciliation of one key, and the targets that reconcile."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Literal, Protocol

from hotpool.core.model import Key, Kind

Direction = Literal["gain", "withdrawal"]
"""Kind of a change of membership. Withdrawal: a node left, or is no longer Ready."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Consequences of the reconciliation of one key."""

    dirty: Collection[Key] = ()
    """Keys whose desired state may differ now."""
    requeue_at: float | None = None
    """Time to reconcile the key again even if nothing changes (monotonic seconds); None: no need."""
    postponed: bool = False
    """True if nothing was written because it is too early: `requeue_at` is the time."""
    change: Direction | None = None
    """Change of membership that was written; None: none."""
    error: Exception | None = None
    """Failure after which the key is tried again."""


class Target(Protocol):
    """A place to which desired state is written. NotLeaderError and FencedError end the work."""

    @property
    def name(self) -> str:
        """Label in metrics, and name of the check in /readyz."""

    @property
    def concurrency(self) -> Mapping[Kind, int]:
        """Kinds that it reconciles, with the number of keys at the same time."""

    @property
    def drift_seconds(self) -> float | None:
        """Time between two drift checks; None: there is none."""

    async def connect(self) -> Collection[Key]:
        """Prepare for writes, at the start and each second while it is unavailable. Return keys that it may hold."""

    async def reconcile(self, key: Key) -> Result:
        """Write what the key needs. Raises UnavailableError if no write can succeed now, else errors of the one key."""

    async def check_drift(self, settled: Callable[[], bool]) -> Collection[Key]:
        """Return the keys whose stored state differs from what was written.

        `settled` returns True while every key was reconciled, and none is to be tried again.
        """
