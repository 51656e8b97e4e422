"""Progress and end of a node's drain (requirement C5): pure.

Drained is never True on faith: whatever cannot be known makes it Unknown, with a reason.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from math import inf
from typing import Final, Literal

from hotpool.api.capability import DrainStatus, ServiceInUse
from hotpool.core.conditions import ConditionUpdate
from hotpool.core.model import Liveness, NodeView, Report

DRAINED: Final = "Drained"
ACCEPTED_SECONDS: Final = 2.0
"""Time for which Redis must have accepted a drain: a dispatcher may still use a node that it has just picked."""
SETTLED_SECONDS: Final = 8.0
"""Time after which a zero of a service counts: such a pick, 2 s to the next reading, D, and the report."""
EVIDENCE_SECONDS: Final = 3600.0
"""Time for which a reservation proves that the node's dispatchers reserve."""
_MAX_COUNT: Final = 2**31 - 1
"""Largest number that the API accepts: dispatchers may reserve with any weight."""

Obstacle = Literal["RedisDown", "NotAccepted", "LedgerTooYoung"]


@dataclass(frozen=True, slots=True)
class Ledger:
    """Reservations that Redis holds. Times are in seconds."""

    age: float
    """Time for which it has been complete: since it was begun, or since the server began."""
    longest: float
    """Time until the last reservation of the fleet expires."""
    total: int
    """Number of all reservations and load reports."""
    reserved: frozenset[str] = frozenset()
    """Nodes with a reservation, of the part that was looked at."""
    in_use: Mapping[str, int] = field(default_factory=dict)
    """Node → sum of the weights of its reservations and load reports, rounded up; of the nodes that were asked for."""
    last_expiry: Mapping[str, str] = field(default_factory=dict)
    """Node → time at which its last reservation expires."""
    by_service: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Node in use → service → slots in use, as of a few seconds ago."""


@dataclass(frozen=True, slots=True)
class DrainObservation:
    """Facts about one draining node beside its own object."""

    since: str | None
    """Beginning of the drain that was observed, as `status.drain` has it; None: it had none yet."""
    obstacle: Obstacle | None = None
    """Reason why nothing can be concluded from the reservations."""
    detail: str = ""
    """The obstacle as text."""
    in_use: int | None = None
    """Reservations of the node; None: not known."""
    last_expiry: str | None = None
    by_service: Mapping[str, int] = field(default_factory=dict)
    """Service → its reservations."""
    reserved: bool = False
    """True if a reservation was made on it in the last hour."""
    served: bool = False
    """True if it is a member of a pool with a Service, whose connections are not counted."""
    settled: bool = False
    """True if the node's report is from `SETTLED_SECONDS` after the accepted drain, or later."""


class Acceptance:
    """Times since which Redis offers none of the draining nodes."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}

    def update(self, draining: Iterable[str], offered: frozenset[str], now: float) -> None:
        """Note the nodes that drain, and those of them that Redis may still offer."""
        self._since = {name: self._since.get(name, now) for name in draining if name not in offered}

    def on_offer(self, nodes: frozenset[str]) -> None:
        """Note a write that offers nodes, as between two drains."""
        for name in self._since.keys() & nodes:
            del self._since[name]

    def reset(self) -> None:
        """Forget all, because it is not known what Redis offers."""
        self._since.clear()

    def since(self, name: str) -> float:
        """Return the time of acceptance; infinite: not accepted."""
        return self._since.get(name, inf)


def obstacle(ledger: Ledger, accepted_since: float, now: float, drain_age: float, longest: float) -> Obstacle | None:
    """Return the reason why nothing can be concluded from a ledger. `longest`: longest reservation that is known.

    A younger ledger may lack reservations that were made before the drain.
    """
    if now < accepted_since + ACCEPTED_SECONDS:
        return "NotAccepted"
    return "LedgerTooYoung" if ledger.age <= max(drain_age, longest) else None


def drain_age(view: NodeView, unix: float) -> float:
    """Return the seconds since the drain began; 0: it has no status yet, infinite: its time cannot be read."""
    if view.node.drain_status is None:
        return 0.0
    try:
        return max(0.0, unix - datetime.fromisoformat(view.node.drain_status.since).timestamp())
    except (ValueError, OverflowError):
        return inf


def plan_drain(
    view: NodeView, seen: DrainObservation | None, timestamp: str
) -> tuple[DrainStatus | None, ConditionUpdate | None]:
    """Return `status.drain` and condition Drained; None: absent. `seen`: None before the first observation."""
    if not view.draining:
        return None, ConditionUpdate(DRAINED, "False", "NotDraining") if DRAINED in view.node.conditions else None
    stored, report = view.node.drain_status, view.node.report
    if seen is None or stored is None or seen.since != stored.since:
        seen = DrainObservation(None, "NotAccepted")  # what was observed may be an earlier drain
    numbers = report.numbers if report else {}
    reserved = seen.reserved or (stored is not None and stored.counted in {"Reservations", "Both"})
    by_services = report is not None and bool(numbers) and not report.uncounted
    known = [sum(numbers.values())] if numbers else []
    if seen.in_use is not None and (reserved or seen.in_use):
        known.append(seen.in_use)
    status = DrainStatus(
        since=stored.since if stored else timestamp,
        counted=_counted(reserved=reserved, by_services=by_services),
        in_flight=min(max(known), _MAX_COUNT) if known else None,
        by_service=_by_service(report, seen.by_service),
        last_expiry=seen.last_expiry,
    )
    proven = by_services and seen.settled and view.liveness is Liveness.LIVE
    return status, _condition(status, seen, reserved=reserved, by_services=proven)


def _by_service(report: Report | None, slots: Mapping[str, int]) -> tuple[ServiceInUse, ...]:
    """Return the larger of the two numbers of each ready service, and the own number of the others."""
    if report is None:
        return ()
    ready = {service for state in report.types.values() for service in state.services}
    numbers = Counter(report.numbers) | Counter({name: slots[name] for name in slots.keys() & ready})
    return tuple(
        ServiceInUse(id=name, in_flight=min(numbers[name], _MAX_COUNT)) for name in sorted({*report.numbers, *numbers})
    )


def _counted(*, reserved: bool, by_services: bool) -> str:
    if reserved:
        return "Both" if by_services else "Reservations"
    return "Services" if by_services else "Nothing"


def _condition(status: DrainStatus, seen: DrainObservation, *, reserved: bool, by_services: bool) -> ConditionUpdate:
    if status.in_flight:
        return ConditionUpdate(DRAINED, "False", "InUse", "work is in progress: see status.drain")
    if seen.obstacle:
        return ConditionUpdate(DRAINED, "Unknown", seen.obstacle, seen.detail or _OBSTACLES[seen.obstacle])
    if seen.served and not by_services:
        text = "a pool with a Service has the node, and its services do not count their requests (inFlight)"
        return ConditionUpdate(DRAINED, "Unknown", "ServedByService", text)
    if not reserved and not by_services:
        text = "no reservation in the last hour, and not every service counts its requests (inFlight)"
        return ConditionUpdate(DRAINED, "Unknown", "NothingCounted", text)
    return ConditionUpdate(DRAINED, "True", "NothingInUse", "nothing that is counted is in use")


_OBSTACLES: Final[Mapping[Obstacle, str]] = {
    "RedisDown": "Redis does not respond",
    "NotAccepted": "Redis has not offered the node for less than 2 s",
    "LedgerTooYoung": "Redis has lost reservations, or began after the drain or a reservation that may still last",
}
