"""What must be written so that what is applied becomes what is planned; empty means stop here (requirement D4).

Pure.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from hotpool.api.meta import Condition
from hotpool.api.pool import PoolStatus
from hotpool.core.model import Member, Pool, Slice, StoredCondition


@dataclass(frozen=True, slots=True)
class CreateSlice:
    """A slice that is not there yet."""

    name: str
    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class UpdateSlice:
    """A slice with other members, or with an owner or a label that is not right."""

    slice: Slice
    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class DeleteSlice:
    """A slice that is not wanted."""

    slice: Slice


SliceWrite = CreateSlice | UpdateSlice | DeleteSlice


def diff_slices(
    pool: Pool, applied: Mapping[str, Slice], planned: Mapping[str, tuple[Member, ...]]
) -> list[SliceWrite]:
    """The writes, deletions last so that a member that moves is added before it is removed (requirement D7).

    None for a pool about which nothing is changed, though others claim to be its slices.
    """
    if pool.paused or pool.problem:
        return []
    writes: list[SliceWrite] = []
    for name, members in planned.items():
        known = applied.get(name)
        if known is None:
            writes.append(CreateSlice(name, members))
        elif _members_differ(known.members, members) or known.owner != pool.meta.uid or not known.labelled:
            writes.append(UpdateSlice(known, members))
    return [*writes, *(DeleteSlice(item) for name, item in applied.items() if name not in planned)]


def _members_differ(applied: tuple[Member, ...], planned: tuple[Member, ...]) -> bool:
    """Most slices of a plan are the very tuples that are applied."""
    return applied is not planned and applied != planned


def status_differs(stored: PoolStatus, planned: PoolStatus) -> bool:
    """Whether a pool's status must be written at all."""
    return stored != planned


def status_is_urgent(stored: PoolStatus, planned: PoolStatus) -> bool:
    """Whether more than counts by reason differ: those may wait in the slow lane."""
    same = {"excluded": ()}
    return stored.model_copy(update=same) != planned.model_copy(update=same)


def conditions_differ(stored: Mapping[str, StoredCondition], planned: tuple[Condition, ...]) -> bool:
    """Whether ours must be written: on transitions (requirement C6) and after a change of the spec."""
    return any(not _is_stored(stored.get(condition.type), condition) for condition in planned)


def _is_stored(stored: StoredCondition | None, planned: Condition) -> bool:
    return stored is not None and (stored.status, stored.reason, stored.generation) == (
        planned.status,
        planned.reason,
        planned.observed_generation,
    )
