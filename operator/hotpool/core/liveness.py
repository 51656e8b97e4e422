"""When a silent node becomes Suspect and Offline (behaviour C3). Pure arithmetic on monotonic seconds.

Called by `core.state`. Which events count as a heartbeat is decided there.
"""

from typing import Final

from hotpool.core.model import Liveness

SUSPECT_AFTER: Final = 3
"""Heartbeat intervals of silence until a node is Suspect."""
OFFLINE_AFTER: Final = 4
"""Heartbeat intervals of silence until a node is Offline."""


def assess(beat: float, now: float, interval: float) -> Liveness:
    """The liveness at `now` when the last heartbeat was at `beat`, with H = `interval` seconds."""
    if now >= beat + interval * OFFLINE_AFTER:
        return Liveness.OFFLINE
    return Liveness.SUSPECT if now >= beat + interval * SUSPECT_AFTER else Liveness.LIVE


def next_change(beat: float, interval: float, liveness: Liveness) -> float | None:
    """The moment at which silence since `beat` changes the liveness next, or None when Offline."""
    if liveness is Liveness.OFFLINE:
        return None
    return beat + interval * (SUSPECT_AFTER if liveness is Liveness.LIVE else OFFLINE_AFTER)
