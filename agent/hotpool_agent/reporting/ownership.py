"""Whose report the stored one is, and what that allows (requirements B7, B12): pure.

The rule for two agents with one node name: a stored report of somebody else may be replaced when it said `leaving`, or
when for one whole Lease duration (3 H, theirs) neither its Lease's renewTime nor its epoch or sequence changed. Whoever
changes one of these is alive, and the newcomer does not write.
"""

from dataclasses import dataclass
from enum import Enum, auto
from typing import Any


@dataclass(frozen=True, slots=True)
class StoredReport:
    """The stamps of the report that the API server holds."""

    instance: str
    session: str
    epoch: int
    sequence: int
    leaving: bool
    interval: int


@dataclass(frozen=True, slots=True)
class ActivityStamp:
    """What a living agent changes: compared for equality only."""

    epoch: int
    sequence: int
    renew_time: str | None


class OwnershipDecision(Enum):
    """What the stored report allows."""

    CONTINUE = auto()
    """It is of this process: go on with its epoch."""
    CLAIM = auto()
    """Claim the next epoch."""
    WATCH = auto()
    """Somebody else may be alive: watch before deciding."""


def stored_in(capability: dict[str, Any] | None) -> StoredReport | None:
    """The stamps in a NodeCapability, or None when there is no report (or nothing that could be one)."""
    status = (capability or {}).get("status")
    report = status.get("report") if isinstance(status, dict) else None
    if not isinstance(report, dict):
        return None
    return StoredReport(
        instance=str(report.get("instance")),
        session=str(report.get("session")),
        epoch=_count(report.get("epoch"), 0),
        sequence=_count(report.get("sequence"), 0),
        leaving=bool(report.get("leaving")),
        interval=_count(report.get("intervalSeconds"), 15),
    )


def _count(value: Any, default: int) -> int:
    return value if isinstance(value, int) and value >= 0 else default


def decide(stored: StoredReport | None, instance: str, session: str, own_epoch: int) -> OwnershipDecision:
    """What the stored report allows this process, which has reported in `own_epoch` (0: not yet)."""
    if stored is None:
        return OwnershipDecision.CLAIM
    if stored.session == session:
        return OwnershipDecision.CONTINUE
    # A restart of this installation continues at once; but if a process of ours is superseded by another one of the
    # same installation (a copied state folder), the later one keeps the node.
    if stored.instance == instance and own_epoch == 0:
        return OwnershipDecision.CLAIM
    return OwnershipDecision.CLAIM if stored.leaving else OwnershipDecision.WATCH
