"""Ownership of the stored report, and whether this agent may replace it (requirements B7, B12): pure.

The rule for two agents with one node name: a stored report of another agent may be replaced if it has `leaving` set, or
if for one Lease duration (3 H of that agent) neither the Lease's renewTime nor the report's epoch or sequence changed.
An agent that changes one of these is alive, and this agent must not write.
"""

from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final

from hotpool.api.names import MAX_INTERVAL_SECONDS
from hotpool_agent.untrusted_text import readable

_ID_MAX: Final = 63


@dataclass(frozen=True, slots=True)
class StoredReport:
    """Stamps of the report that the API server holds. `interval` is in seconds."""

    instance: str
    session: str
    epoch: int
    sequence: int
    leaving: bool
    interval: int


@dataclass(frozen=True, slots=True)
class ActivityStamp:
    """Values that a live agent changes. Compared for equality only."""

    epoch: int
    sequence: int
    renew_time: str | None


class OwnershipDecision(Enum):
    """Next step of this agent, given the stored report."""

    CONTINUE = auto()
    """The report is of this process: continue its epoch."""
    CLAIM = auto()
    """Claim the next epoch."""
    WATCH = auto()
    """Another agent may be alive: watch its activity before claiming."""


def parse_stored(capability: dict[str, Any] | None) -> StoredReport | None:
    """Return the stamps of the report in a NodeCapability, or None without a report or with one of another shape."""
    status = (capability or {}).get("status")
    report = status.get("report") if isinstance(status, dict) else None
    if not isinstance(report, dict):
        return None
    return StoredReport(
        instance=readable(str(report.get("instance")), _ID_MAX),
        session=readable(str(report.get("session")), _ID_MAX),
        epoch=_non_negative(report.get("epoch"), 0),
        sequence=_non_negative(report.get("sequence"), 0),
        leaving=bool(report.get("leaving")),
        interval=min(_non_negative(report.get("intervalSeconds"), 15), MAX_INTERVAL_SECONDS),
    )


def _non_negative(value: Any, default: int) -> int:
    return value if isinstance(value, int) and value >= 0 else default


def decide(stored: StoredReport | None, instance: str, session: str, own_epoch: int) -> OwnershipDecision:
    """Return the next step of this process, whose last accepted epoch is `own_epoch` (0: none)."""
    if stored is None:
        return OwnershipDecision.CLAIM
    if stored.session == session:
        return OwnershipDecision.CONTINUE
    # A restarted agent of this installation claims at once. If this process was superseded by another one of the same
    # installation (a copied state folder), the later one keeps the node.
    if stored.instance == instance and own_epoch == 0:
        return OwnershipDecision.CLAIM
    return OwnershipDecision.CLAIM if stored.leaving else OwnershipDecision.WATCH
