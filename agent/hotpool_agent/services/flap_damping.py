"""Flap damping of one service (requirement A7). Pure.

Flap damping keeps a service that comes and goes from being offered, by the penalty of RFC 2439 (route flap damping):
each flap adds to it, it halves in a fixed time, and a service that exceeds one limit stays suppressed until the penalty
is below a second one. It never delays a withdrawal. Times in seconds on any one clock.
"""

import math
from dataclasses import dataclass, replace
from typing import Final

FLAP: Final = 1.0
SUPPRESS: Final = 2.5
"""Penalty above which a service is suppressed, reached by the third flap in a row."""
REUSE: Final = 1.0
"""Penalty below which the service is offered again."""
LIMIT: Final = 8.0
"""Maximum of the penalty, so that a service is never suppressed for more than three half-lives."""


@dataclass(frozen=True, slots=True)
class FlapDamping:
    """Penalty of one service at the time `at`. `half_life`: seconds in which it halves."""

    half_life: float
    penalty: float = 0.0
    at: float = 0.0
    suppressed: bool = False

    def flapped(self, now: float) -> "FlapDamping":
        """Return the penalty after one more stop that was not requested."""
        penalty = min(self.level(now) + FLAP, LIMIT)
        return replace(self, penalty=penalty, at=now, suppressed=self.suppresses(now) or penalty > SUPPRESS)

    def suppresses(self, now: float) -> bool:
        """Return True if the service must not be offered even if it runs."""
        return self.suppressed and now < self.suppressed_until()

    def suppressed_until(self) -> float:
        """Return the time at which the penalty will have decayed to REUSE."""
        return self.at + self.half_life * math.log2(max(self.penalty, REUSE) / REUSE)

    def level(self, now: float) -> float:
        """Return the remaining penalty. A clock that went back counts as one that stood still."""
        return self.penalty * math.exp2(-max(0.0, now - self.at) / self.half_life)
