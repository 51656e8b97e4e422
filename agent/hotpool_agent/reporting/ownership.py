"""Ownership of the stored report, and whether this agent may replace it (requirements B7, B12): pure.

The rule for two agents with one node name: a stored report of another agent may be replaced if it has `leaving` set, or
if for one Lease duration (3 H of that agent) neither the Lease's renewTime nor the report's epoch or sequence changed.
An agent that changes one of these is alive, and this agent must not write.
"""

from dataclasses import dataclass
from typing import Any, Final

from hotpool.api.names import MAX_INTERVAL_SECONDS
from hotpool_agent.json_access import mapping
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


def parse_stored(capability: dict[str, Any] | None) -> StoredReport | None:
    """Return the stamps of the report in a NodeCapability, or None without a report or with one of another shape."""
    report = mapping((capability or {}).get("status")).get("report")
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


def must_observe(stored: StoredReport, instance: str, session: str, own_epoch: int) -> bool:
    """Return True if the report may be of another live agent, which must be observed before a claim.

    `own_epoch`: the last epoch in which this process was accepted; 0: none.
    """
    if stored.session == session or stored.leaving:
        return False
    # A restarted agent of this installation claims at once. If this process was superseded by another one of the same
    # installation (a copied state folder), the later one keeps the node.
    return stored.instance != instance or own_epoch > 0
