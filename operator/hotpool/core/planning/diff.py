"""Differences between stored and planned state. Without a difference nothing is written (requirement D4).

Pure.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from hotpool.api.meta import Condition
from hotpool.api.pool import PoolStatus
from hotpool.core.model import Member, Pool, Slice, StoredCondition


@dataclass(frozen=True, slots=True)
class CreateSlice:
    """Creation of a missing slice."""

    name: str
    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class UpdateSlice:
    """Update of a slice with wrong members, a wrong owner or a wrong label."""

    slice: Slice
    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class DeleteSlice:
    """Deletion of a surplus slice."""

    slice: Slice


SliceWrite = CreateSlice | UpdateSlice | DeleteSlice


def diff_slices(pool: Pool, stored: Mapping[str, Slice], planned: Mapping[str, tuple[Member, ...]]) -> list[SliceWrite]:
    """Return the writes. Deletions are last, so that a move adds a member before it removes it (requirement D7).

    Return no writes for a pool that is paused or whose spec is invalid, even if there are surplus slices.
    """
    if pool.paused or pool.problem:
        return []
    writes: list[SliceWrite] = []
    for name, members in planned.items():
        current = stored.get(name)
        if current is None:
            writes.append(CreateSlice(name, members))
        elif _members_differ(current.members, members) or current.owner != pool.meta.uid or not current.labelled:
            writes.append(UpdateSlice(current, members))
    return [*writes, *(DeleteSlice(item) for name, item in stored.items() if name not in planned)]


def _members_differ(stored: tuple[Member, ...], planned: tuple[Member, ...]) -> bool:
    """Compare members; most unchanged slices share one tuple with the stored slice, which is fast."""
    return stored is not planned and stored != planned


def status_differs(stored: PoolStatus, planned: PoolStatus) -> bool:
    """Return True if a pool's status must be written."""
    return stored != planned


def status_is_urgent(stored: PoolStatus, planned: PoolStatus) -> bool:
    """Return True if more than the counts in `status.excluded` differs; only the counts may wait."""
    without_counts = {"excluded": ()}
    return stored.model_copy(update=without_counts) != planned.model_copy(update=without_counts)


def conditions_differ(stored: Mapping[str, StoredCondition], planned: tuple[Condition, ...]) -> bool:
    """Return True if conditions must be written: after a transition (C6), another cause, or a change of the spec."""
    return any(not _is_stored(stored.get(condition.type), condition) for condition in planned)


def _is_stored(stored: StoredCondition | None, planned: Condition) -> bool:
    return stored is not None and (stored.status, stored.reason, stored.message, stored.generation) == (
        planned.status,
        planned.reason,
        planned.message,
        planned.observed_generation,
    )
