"""Desired state of one generator: pools to create, correct and remove, and its status (requirement D5).

Pure. `core.generators.key_index` counts the keys that nodes offer.
"""

from collections.abc import Collection, Container, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from hotpool.api.generator import GeneratorStatus, NotAdmitted
from hotpool.api.meta import Condition
from hotpool.api.pool import PoolSpec
from hotpool.core.conditions import (
    PAUSE_IGNORED,
    UNKNOWN_REQUIREMENT,
    ConditionUpdate,
    pause_ignored,
    unknown_requirement,
    update_conditions,
)
from hotpool.core.declared_words import Declared, Undeclared, undeclared_key, undeclared_words
from hotpool.core.generators.admission import Admission, admit, with_refused_keys
from hotpool.core.generators.key_index import GeneratorEntry
from hotpool.core.generators.key_rule import MAX_KEYS
from hotpool.core.lists_of_words import listed
from hotpool.core.model import Generator, Pool

MAX_COMPARED_POOLS: Final = 500
"""Bound of the pools whose spec one plan compares."""
MAX_WRITES: Final = 100
"""Bound of the writes of one plan, so that generators take turns. Each write leads to the next plan."""
CONDITION_TYPES: Final = frozenset(
    {"Ready", PAUSE_IGNORED, UNKNOWN_REQUIREMENT, "NotAdmitted", "NameTaken", "TooManyKeys", "LanguageSetsTruncated"}
)
"""Conditions of a generator that the operator writes."""
_MAX_NAMED: Final = 5
"""Objects named in a message; of the others it has the number."""
_MAX_KEY_LENGTH: Final = 253


@dataclass(frozen=True, slots=True)
class GeneratorPlan:
    """Changes for one generator, and its status."""

    create: Mapping[str, PoolSpec]
    """Name of a missing pool → spec."""
    correct: Mapping[str, PoolSpec]
    """Name of a pool with a wrong spec, for example after an edit by hand → correct spec."""
    remove: tuple[Pool, ...]
    status: GeneratorStatus
    recheck_at: float | None
    """Time of the next plan (monotonic seconds): at the end of the next grace, or now if this plan left work."""


@dataclass(frozen=True, slots=True)
class _PoolsInUse:
    """Keys of the generator's pools, and how long they stay."""

    keys: Mapping[str, str]
    """Pool name → key, of pools whose key is known."""
    staying: tuple[str, ...]
    """Keys whose pools stay for now."""
    next_expiry: float | None
    """End of the next grace (monotonic seconds)."""


def plan_generator(
    entry: GeneratorEntry,
    own: Mapping[str, Pool],
    names: Container[str],
    now: float,
    timestamp: str,
    *,
    declared: Declared | None = None,
    types: Collection[str] = (),
) -> GeneratorPlan:
    """Plan one generator. `own`: its pools by name; `names`: of all pools; `now`: monotonic; `timestamp`: RFC 3339.

    `declared`: attributes of all services; None: required words are not looked for. `types`: those that nodes report.
    """
    generator = entry.generator
    if generator.paused or entry.problem:
        return GeneratorPlan({}, {}, (), _idle_status(entry, timestamp), None)
    if not entry.index.count_step():
        return GeneratorPlan({}, {}, (), generator.status, now)
    in_use = _pools_in_use(entry, own, now)
    admission = admit(
        entry.index.ranking, in_use.staying, generator.spec, entry.name, lambda name: name in own or name not in names
    )
    desired = {entry.name(key): key for key in admission.admitted}
    entry.prune({*admission.admitted, *in_use.keys.values()})
    correct, incomplete = _corrections(entry, own, desired)
    unknown = () if declared is None else unknown_requirement(_undeclared(entry, declared, types))
    missing = [name for name in desired if name not in own]
    surplus = [pool for name, pool in own.items() if name not in desired and not pool.paused]
    return GeneratorPlan(
        create={name: entry.desired_spec(desired[name]) for name in missing[:MAX_WRITES]},
        correct=correct,
        remove=tuple(surplus[:MAX_WRITES]),
        status=_status(entry, admission, timestamp, unknown),
        recheck_at=now if incomplete else in_use.next_expiry,
    )


def _pools_in_use(entry: GeneratorEntry, own: Mapping[str, Pool], now: float) -> _PoolsInUse:
    """Return the keys that stay: while a node offers them or is a member of their pool, and then for the grace.

    A pool of a former rule of the generator stays for the grace only, whether it has members or not.
    """
    grace = entry.generator.spec.grace_seconds
    keys = {name: key for name, pool in own.items() if (key := entry.key(pool)) is not None}
    paused = {key for name, key in keys.items() if own[name].paused}
    empty_since = entry.empty_since([key for name, key in keys.items() if _is_empty(entry, own[name], key)], now)
    ends = {key: since + grace for key, since in empty_since.items() if key not in paused}
    staying = tuple(key for key in keys.values() if ends.get(key, now + 1) > now)
    return _PoolsInUse(keys, staying, min((end for end in ends.values() if end > now), default=None))


def _is_empty(entry: GeneratorEntry, pool: Pool, key: str) -> bool:
    if key in entry.index.ranking.counts:
        return False
    return not (entry.made_by_current_rule(pool, key) and pool.status.members)


def _corrections(
    entry: GeneratorEntry, own: Mapping[str, Pool], desired: Mapping[str, str]
) -> tuple[dict[str, PoolSpec], bool]:
    """Return the pools with a wrong spec, and True if more pools must be compared. Ignore paused pools."""
    correct: dict[str, PoolSpec] = {}
    compared = 0
    for name, key in desired.items():
        pool = own.get(name)
        if pool is None or pool.paused or entry.is_known_equal(pool):
            continue
        if key not in entry.index.ranking.counts and not entry.made_by_current_rule(pool, key):
            continue
        if compared >= MAX_COMPARED_POOLS or len(correct) >= MAX_WRITES:
            return correct, True
        compared += 1
        if entry.differs(pool, key):
            correct[name] = entry.desired_spec(key)
    return correct, False


def _undeclared(entry: GeneratorEntry, declared: Declared, types: Collection[str]) -> Iterator[Undeclared]:
    yield from undeclared_words(entry.spec.requires.types, types, declared)
    rule = entry.generator.spec.rule.attribute_values
    if rule and rule.type in types:
        yield from undeclared_key(rule.type, rule.key, declared)


def _status(
    entry: GeneratorEntry, admission: Admission, timestamp: str, unknown: tuple[ConditionUpdate, ...]
) -> GeneratorStatus:
    generator = entry.generator
    if entry.rule and entry.index.refused.counts:
        admission = with_refused_keys(admission, entry.index.refused, entry.rule.refusal_reason)
    pools, not_admitted = len(admission.admitted), admission.not_admitted_count
    updates = [
        ConditionUpdate("Ready", "True", "Generated", f"{pools} pools, {not_admitted} not admitted"),
        *pause_ignored(generator.pause_problem),
        *unknown,
        *_admission_conditions(admission),
        *_limit_conditions(entry),
    ]
    return GeneratorStatus(
        observed_generation=generator.meta.generation,
        pools=pools,
        not_admitted=tuple(NotAdmitted(key=_truncate(k), nodes=n, reason=r) for k, n, r in admission.not_admitted),
        not_admitted_count=not_admitted,
        conditions=_conditions(updates, generator, timestamp),
        ready="True",
    )


def _admission_conditions(admission: Admission) -> list[ConditionUpdate]:
    updates = []
    if admission.not_admitted_count:
        key, nodes, reason = admission.not_admitted[0]
        text = f"{admission.not_admitted_count} without a pool; first {_truncate(key)}: {nodes} nodes, {reason}"
        updates.append(ConditionUpdate("NotAdmitted", "True", reason, text))
    if admission.name_conflicts:
        names = listed(admission.name_conflicts, _MAX_NAMED)
        text = f"pools of other owners or of other keys have these names: {names}"
        updates.append(ConditionUpdate("NameTaken", "True", "NotOurs", f"{text}; they stay unchanged"))
    return updates


def _limit_conditions(entry: GeneratorEntry) -> list[ConditionUpdate]:
    updates = []
    if more := entry.index.nodes_over_key_limit():
        text = f"more than {MAX_KEYS} keys, only the first by name count; nodes: {listed(more, _MAX_NAMED)}"
        updates.append(ConditionUpdate("TooManyKeys", "True", "TooManyKeys", text))
    if truncated := entry.index.nodes_with_truncated_search():
        text = f"too many language sets to find all, only those found count; nodes: {listed(truncated, _MAX_NAMED)}"
        updates.append(ConditionUpdate("LanguageSetsTruncated", "True", "TooManySets", text))
    return updates


def _idle_status(entry: GeneratorEntry, timestamp: str) -> GeneratorStatus:
    generator = entry.generator
    ready = ConditionUpdate("Ready", "False", "InvalidSpec", (entry.problem or "")[:1024])
    if generator.paused:
        ready = ConditionUpdate("Ready", "False", "Paused", "annotation hotpool.dev/paused: its pools stay as they are")
    conditions = _conditions([ready, *pause_ignored(generator.pause_problem)], generator, timestamp)
    return generator.status.model_copy(
        update={"observed_generation": generator.meta.generation, "conditions": conditions, "ready": "False"}
    )


def _conditions(updates: list[ConditionUpdate], generator: Generator, timestamp: str) -> tuple[Condition, ...]:
    stored = generator.status.conditions
    return update_conditions(updates, stored, CONDITION_TYPES, generator.meta.generation, timestamp)


def _truncate(key: str) -> str:
    return key if len(key) <= _MAX_KEY_LENGTH else f"{key[: _MAX_KEY_LENGTH - 1]}…"
