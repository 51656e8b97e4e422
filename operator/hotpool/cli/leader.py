"""The leading operator from outside, by its election Lease and its probe Lease. Reads only."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from hotpool.api import meta
from hotpool.common.durations import age, parse, seconds_since
from hotpool.kube.client import ApiUnavailable
from hotpool.kube.reader import Reader

Json = Mapping[str, Any]

_POLL_SECONDS: Final = 0.25
_POLLS: Final = 10
"""Reads of a Lease that seems expired: a leader renews it every second."""
_DEFAULT_DURATION: Final = 6
_FORBIDDEN: Final = 403


@dataclass(frozen=True, slots=True)
class Leader:
    """The operator in the election Lease.

    `age`: seconds since its last renewal by the local clock, None if it never was; negative if that clock is behind.
    `probe_lag`: seconds by which its probe Lease is older than its election Lease, both by its own clock; None: no
    probe. `problem`: reason why no operator leads; empty if one does.
    """

    holder: str | None = None
    term: int = 0
    renewed: str | None = None
    age: float | None = None
    version: str | None = None
    schema_revision: int | None = None
    probe_lag: float | None = None
    problem: str = ""

    @property
    def never_ran(self) -> bool:
        """True if no operator has ever led this fleet."""
        return self.renewed is None

    @property
    def leads(self) -> bool:
        """True if an operator leads."""
        return not self.problem


def leader_of(lease: Json | None, probe: Json | None, now: datetime, *, renewing: bool = False) -> Leader:
    """Return the leader of a fleet. `renewing`: the Lease was seen to be renewed, whatever the local clock says."""
    if lease is None:
        return Leader(problem=f"there is no Lease {meta.ELECTION_LEASE}, so none has run yet")
    spec = lease.get("spec") or {}
    annotations = lease["metadata"].get("annotations") or {}
    revision = annotations.get(meta.SCHEMA_REVISION_ANNOTATION, "")
    holder, renewed = spec.get("holderIdentity") or None, spec.get("renewTime")
    seconds = seconds_since(renewed, now)
    return Leader(
        holder=holder,
        term=spec.get("leaseTransitions") or 0,
        renewed=renewed,
        age=seconds,
        version=annotations.get(meta.VERSION_ANNOTATION),
        schema_revision=int(revision) if revision.isdecimal() else None,
        probe_lag=_probe_lag(renewed, probe),
        problem="" if renewing and holder else _problem(holder, seconds, _duration(lease)),
    )


def _problem(holder: str | None, seconds: float | None, duration: float) -> str:
    if holder is None:
        return f"the last one ended {age(seconds)} ago" if seconds is not None else "the Lease has no holder"
    if seconds is None or abs(seconds) > duration:
        return f"{holder} has not renewed its Lease for {age(seconds)}"
    return ""


def _duration(lease: Json) -> float:
    return float((lease.get("spec") or {}).get("leaseDurationSeconds") or _DEFAULT_DURATION)


def _probe_lag(renewed: str | None, probe: Json | None) -> float | None:
    beat = parse((probe.get("spec") or {}).get("renewTime")) if probe else None
    last = parse(renewed)
    return (last - beat).total_seconds() if last and beat else None


async def read_leader(reader: Reader, before: Leader | None = None) -> Leader:
    """Read the leader. Raises ApiUnavailable.

    A Lease that seems expired is compared with `before`, read at least a second ago, or else read again for up to
    2.5 s: the clocks may differ, and a leader renews it.
    """
    found = await _read(reader, before)
    if before or found.leads or not found.holder:
        return found
    for _ in range(_POLLS):
        await asyncio.sleep(_POLL_SECONDS)
        again = await _read(reader, found)
        if again.renewed != found.renewed:
            return again
    return found


async def _read(reader: Reader, before: Leader | None) -> Leader:
    lease, probe = await reader.operator_leases()
    renewed = ((lease or {}).get("spec") or {}).get("renewTime")
    return leader_of(lease, probe, datetime.now(UTC), renewing=before is not None and renewed != before.renewed)


async def read_leader_if_allowed(reader: Reader, before: Leader | None = None) -> Leader | None:
    """Return the leader as `read_leader`, or None if this account may not list Leases. Raises ApiUnavailable."""
    try:
        return await read_leader(reader, before)
    except ApiUnavailable as error:
        if error.status != _FORBIDDEN:
            raise
        return None


def warning_of(leader: Leader | None) -> str:
    """Return the first line of a command whose output depends on the operator; empty if one leads."""
    if leader is None:
        return "WARNING: this account may not list Leases, so it is not known whether an operator leads."
    return f"WARNING: no operator leads: {leader.problem}. What follows may be old." if leader.problem else ""
