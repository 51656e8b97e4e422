"""How often a service failed lately, and what follows from it (requirement A7): pure.

Two answers: how long to wait before a crashed service is run again, and whether a service that comes and goes is
offered at all. The penalty is that of RFC 2439 (route flap damping): each flap adds to it, it halves in a fixed time,
and between two limits lies the span in which a service stays suppressed. It never delays a withdrawal. Times in seconds
on any one clock.
"""

import math
from dataclasses import dataclass, replace
from typing import Final

FLAP: Final = 1.0
SUPPRESS: Final = 2.5
"""Above it a service is suppressed: at the third flap in a row."""
REUSE: Final = 1.0
"""Below it the service is offered again."""
LIMIT: Final = 8.0
"""The penalty grows no further, so that a service is never suppressed for more than three half-lives."""


def retry_pause(failures: int, first: float, limit: float) -> float:
    """Seconds until the next attempt after `failures` (1 or more) in a row."""
    return float(min(first * 2 ** min(failures - 1, 32), limit))


@dataclass(frozen=True, slots=True)
class FlapDamping:
    """The penalty of one service as it was at a moment. `half_life`: seconds in which it halves."""

    half_life: float
    penalty: float = 0.0
    at: float = 0.0
    suppressed: bool = False

    def flapped(self, now: float) -> "FlapDamping":
        """After one more unwished end of Running."""
        penalty = min(self.level(now) + FLAP, LIMIT)
        return replace(self, penalty=penalty, at=now, suppressed=self.suppresses(now) or penalty > SUPPRESS)

    def suppresses(self, now: float) -> bool:
        """Whether the service is not offered although it runs."""
        return self.suppressed and now < self.suppressed_until()

    def suppressed_until(self) -> float:
        """When the penalty will have decayed enough."""
        return self.at + self.half_life * math.log2(max(self.penalty, REUSE) / REUSE)

    def level(self, now: float) -> float:
        """The penalty that is left; a clock that went back counts as one that stood still."""
        return self.penalty * math.exp2(-max(0.0, now - self.at) / self.half_life)
