"""When a silent node becomes Suspect and Offline, and whether silence may count at all (requirement C3).

Pure arithmetic on monotonic seconds. Which events count as a heartbeat is decided by the state.
"""

from dataclasses import dataclass, field
from typing import Final

from hotpool.core.model import Liveness

SUSPECT_AFTER: Final = 3
"""Heartbeat intervals of silence until a node is Suspect."""
OFFLINE_AFTER: Final = 4
"""Heartbeat intervals of silence until a node is Offline."""
EXPIRED_AFTER: Final = 600.0
"""Seconds from Suspect on until everything about the node goes (requirements C4, D8)."""
PROBE_SECONDS: Final = 5.0
"""How often the canary Lease is renewed."""
PROBE_TIMEOUT_SECONDS: Final = 10.0
"""The renewal must come back through the Lease stream in this time."""
_MAX_PENDING_PROBES: Final = 8


def liveness_at(beat: float, now: float, interval: float) -> Liveness:
    """The liveness at `now` when the last heartbeat was at `beat`, with H = `interval` seconds."""
    if now >= beat + interval * OFFLINE_AFTER:
        return Liveness.OFFLINE
    return Liveness.SUSPECT if now >= beat + interval * SUSPECT_AFTER else Liveness.LIVE


def next_change(beat: float, interval: float, liveness: Liveness) -> float | None:
    """The moment at which silence since `beat` changes the liveness next, or None when Offline."""
    if liveness is Liveness.OFFLINE:
        return None
    return beat + interval * (SUSPECT_AFTER if liveness is Liveness.LIVE else OFFLINE_AFTER)


@dataclass(slots=True)
class WatchHealth:
    """Whether the Lease stream is proven alive: it is open, and the canary's renewals come back through it in time."""

    confirmed_until: float = 0.0
    """The stream has brought everything that was written until then (monotonic seconds)."""
    _open: bool = False
    _last_received: str | None = None
    """The canary's renewTime that was seen last."""
    _pending: dict[str, float] = field(default_factory=dict)
    """renewTime → when we wrote it, of renewals that did not come back yet."""

    def on_connect(self, now: float) -> None:
        """Everything was listed, and the stream goes on from there."""
        self._open, self.confirmed_until = True, now

    def on_disconnect(self) -> None:
        """The stream ended with an error."""
        self._open = False

    def probe_sent(self, renewed: str, now: float) -> None:
        """We are about to renew the canary."""
        self._pending = dict([*self._pending.items(), (renewed, now)][-_MAX_PENDING_PROBES:])

    def probe_received(self, renewed: str, now: float) -> None:
        """The stream brought the canary. Of another leader's renewal only its arrival is known."""
        if renewed != self._last_received:
            self._last_received = renewed
            self.confirmed_until = max(
                self.confirmed_until, self._pending.get(renewed, now if not self._pending else self.confirmed_until)
            )
            self._pending = {text: at for text, at in self._pending.items() if at > self.confirmed_until}

    def is_stale(self, now: float) -> bool:
        """Whether silence must not count: the stream broke, or a renewal did not come back in time."""
        return not self._open or now > self.deadline

    @property
    def deadline(self) -> float:
        """When the stream is no longer proven, unless a newer renewal comes back."""
        return self.confirmed_until + PROBE_SECONDS + PROBE_TIMEOUT_SECONDS
