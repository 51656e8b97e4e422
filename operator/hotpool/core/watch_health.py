"""Health of the Lease watch, without which silence of nodes does not count (requirement C3).

Pure arithmetic on monotonic seconds.
"""

from dataclasses import dataclass, field
from typing import Final

PROBE_SECONDS: Final = 5.0
"""Seconds between renewals of the probe Lease."""
PROBE_TIMEOUT_SECONDS: Final = 10.0
"""Seconds in which a renewal must arrive through the Lease watch."""
_MAX_PENDING_PROBES: Final = 8


@dataclass(slots=True)
class WatchHealth:
    """Health of the Lease watch: it is open, and renewals of the probe Lease arrive through it in time."""

    confirmed_until: float = 0.0
    """Time until which the watch has delivered every write (monotonic seconds)."""
    _open: bool = False
    _last_received: str | None = None
    """renewTime of the probe Lease received last."""
    _pending: dict[str, float] = field(default_factory=dict)
    """renewTime → time of our write, of renewals not received yet."""

    def on_connect(self, listed: float | None) -> None:
        """Record that the watch is open. `listed`: time of a complete listing; None: it continues where it broke."""
        self._open = True
        self.confirmed_until = self.confirmed_until if listed is None else listed

    def on_disconnect(self) -> None:
        """Record that the watch ended with an error."""
        self._open = False

    def probe_sent(self, renewed: str, now: float) -> None:
        """Record a renewal of the probe Lease, before it is written."""
        self._pending = dict([*self._pending.items(), (renewed, now)][-_MAX_PENDING_PROBES:])

    def probe_received(self, renewed: str, now: float) -> None:
        """Record the arrival of the probe Lease. The write time of another leader's renewal is unknown."""
        if renewed != self._last_received:
            self._last_received = renewed
            self.confirmed_until = max(
                self.confirmed_until, self._pending.get(renewed, now if not self._pending else self.confirmed_until)
            )
            self._pending = {text: at for text, at in self._pending.items() if at > self.confirmed_until}

    def is_stale(self, now: float) -> bool:
        """Return True if silence must not count: the watch broke, or a renewal did not arrive in time."""
        return not self._open or now > self.deadline

    @property
    def deadline(self) -> float:
        """Time from which the watch is stale, unless a newer renewal arrives."""
        return self.confirmed_until + PROBE_SECONDS + PROBE_TIMEOUT_SECONDS
