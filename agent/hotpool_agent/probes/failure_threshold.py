"""Failure threshold of probes (requirement A6): pure. One failed probe alone does not prove that a service failed."""

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class FailureThreshold:
    """Number of failed probes since the last success, at most `limit`."""

    limit: int
    failed: int = 0

    @classmethod
    def initially_failed(cls, limit: int) -> "FailureThreshold":
        """Return the threshold of a service without a success yet: until the first one, each failure is enough."""
        return cls(limit, failed=limit)

    @property
    def is_reached(self) -> bool:
        """True if the service counts as failed."""
        return self.failed >= self.limit

    def add(self, *, ok: bool, conclusive: bool = False) -> "FailureThreshold":
        """Return the threshold after one more probe. A success resets it; a conclusive failure reaches it at once."""
        if ok:
            return replace(self, failed=0)
        return replace(self, failed=self.limit if conclusive else min(self.failed + 1, self.limit))
