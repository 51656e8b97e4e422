"""Counts failures in a row (A6): pure. Used wherever one failed probe is no proof that a service is gone."""

from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class FailureThreshold:
    """Failed probes since the last success. `limit` of them are enough to take a service out."""

    limit: int
    failed: int = 0

    @classmethod
    def initially_failed(cls, limit: int) -> "FailureThreshold":
        """Nothing has succeeded yet: until something does, each failure is enough."""
        return cls(limit, failed=limit)

    @property
    def is_reached(self) -> bool:
        """Whether the service is out."""
        return self.failed >= self.limit

    def add(self, *, ok: bool, proof: bool = False) -> "FailureThreshold":
        """The streak after one more probe: a success ends it at once; a failure that is a proof needs no other."""
        if ok:
            return replace(self, failed=0)
        return replace(self, failed=self.limit if proof else min(self.failed + 1, self.limit))
