"""The desired result for one generator: pools to make, to put right and to remove, and its status (requirement D5).

Pure; which keys nodes offer is known by `core.generators.key_index`.
"""

from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Final

from hotpool.api.generator import GeneratorStatus, NotAdmitted
from hotpool.api.pool import PoolSpec
from hotpool.core.conditions import ConditionUpdate, set_conditions
from hotpool.core.generators.admission import Admission, NameAllocator, admit, with_refused_keys
from hotpool.core.generators.key_index import GeneratorEntry
from hotpool.core.generators.key_rule import MAX_KEYS
from hotpool.core.model import Generator, Pool

MAX_COMPARED_POOLS: Final = 500
"""Pools compared with what they should be in one plan."""
MAX_WRITES: Final = 100
"""Pools made, put right or removed in one plan, so that generators take turns; each write brings the next plan."""
_MAX_NAMED: Final = 5
"""Objects that a message names; of the others it says the number."""
_MAX_KEY_LENGTH: Final = 253


@dataclass(frozen=True, slots=True)
class GeneratorPlan:
    """What shall be done for one generator."""

    create: Mapping[str, PoolSpec]
    """Pool name → spec."""
    correct: Mapping[str, PoolSpec]
    """Pools that differ from what the generator wants, for example edited by hand."""
    remove: tuple[Pool, ...]
    status: GeneratorStatus
    recheck_at: float | None
    """When to plan again (monotonic seconds): at the end of the next grace, or now where a turn was not enough."""


@dataclass(frozen=True, slots=True)
class _PoolsInUse:
    """The pools of the generator and how long their keys stay."""

    keys: Mapping[str, str]
    """Name → key, of pools that have one."""
    staying: tuple[str, ...]
    """Keys whose pools may not go yet."""
    next_expiry: float | None


def plan_generator(
    subject: GeneratorEntry, own: Mapping[str, Pool], names: Container[str], moment: float, now: str
) -> GeneratorPlan:
    """The whole desired result. `own`: the generator's pools by name; `names`: of all pools; `now`: RFC 3339."""
    generator = subject.generator
    if generator.paused or subject.problem:
        return GeneratorPlan({}, {}, (), _idle_status(subject, now), None)
    if not subject.index.count_step():
        return GeneratorPlan({}, {}, (), generator.status, moment)
    standing = _pools_in_use(subject, own, moment)
    free = NameAllocator(subject.name, lambda name: name in own or name not in names)
    for key in standing.staying:
        free.claim(key)
    admission = admit(subject.index.ranking, standing.staying, generator.spec, free)
    wanted = {subject.name(key): key for key in admission.admitted}
    subject.prune({*admission.admitted, *standing.keys.values()})
    correct, unchecked = _corrections(subject, own, wanted)
    missing = [name for name in wanted if name not in own]
    unwanted = [pool for name, pool in own.items() if name not in wanted and not pool.paused]
    return GeneratorPlan(
        create={name: subject.desired_spec(wanted[name]) for name in missing[:MAX_WRITES]},
        correct=correct,
        remove=tuple(unwanted[:MAX_WRITES]),
        status=_status(subject, admission, now),
        recheck_at=moment if unchecked else standing.next_expiry,
    )


def _pools_in_use(subject: GeneratorEntry, own: Mapping[str, Pool], moment: float) -> _PoolsInUse:
    """A key stays while a node offers it or is a member of its pool, and for the grace time after that.

    A pool of a rule that the generator had before is not asked for its members: it only waits for the end of its grace.
    """
    grace = subject.generator.spec.grace_seconds
    keys = {name: key for name, pool in own.items() if (key := subject.key(pool)) is not None}
    held = {key for name, key in keys.items() if own[name].paused}
    empty = subject.empty_since([key for name, key in keys.items() if _is_empty(subject, own[name], key)], moment)
    ends = {key: since + grace for key, since in empty.items() if key not in held}
    staying = tuple(key for key in keys.values() if ends.get(key, moment + 1) > moment)
    return _PoolsInUse(keys, staying, min((end for end in ends.values() if end > moment), default=None))


def _is_empty(subject: GeneratorEntry, pool: Pool, key: str) -> bool:
    if key in subject.index.ranking.counts:
        return False
    return not (subject.made_by_current_rule(pool, key) and pool.status.members)


def _corrections(
    subject: GeneratorEntry, own: Mapping[str, Pool], wanted: Mapping[str, str]
) -> tuple[dict[str, PoolSpec], bool]:
    """Pools whose spec is not as it should be, and whether more must be looked at. Paused ones are left alone."""
    correct: dict[str, PoolSpec] = {}
    looked_at = 0
    for name, key in wanted.items():
        pool = own.get(name)
        if pool is None or pool.paused or subject.is_known_equal(pool):
            continue
        if key not in subject.index.ranking.counts and not subject.made_by_current_rule(pool, key):
            continue
        if looked_at >= MAX_COMPARED_POOLS or len(correct) >= MAX_WRITES:
            return correct, True
        looked_at += 1
        if subject.differs(pool, key):
            correct[name] = subject.desired_spec(key)
    return correct, False


def _status(subject: GeneratorEntry, admission: Admission, now: str) -> GeneratorStatus:
    generator = subject.generator
    if subject.rule and subject.index.refused.counts:
        admission = with_refused_keys(admission, subject.index.refused, subject.rule.refusal_reason)
    pools, left_out = len(admission.admitted), admission.not_admitted_count
    claims = [
        ConditionUpdate("Ready", "True", "Generated", f"{pools} pools, {left_out} not admitted"),
        *_admission_conditions(admission),
        *_limit_conditions(subject),
    ]
    return GeneratorStatus(
        observed_generation=generator.meta.generation,
        pools=pools,
        not_admitted=tuple(
            NotAdmitted(key=_truncate(key), nodes=n, reason=why) for key, n, why in admission.not_admitted
        ),
        not_admitted_count=left_out,
        conditions=set_conditions(claims, _stored_conditions(generator), generator.meta.generation, now),
        ready="True",
    )


def _admission_conditions(admission: Admission) -> list[ConditionUpdate]:
    claims = []
    if admission.not_admitted_count:
        key, nodes, reason = admission.not_admitted[0]
        text = f"{admission.not_admitted_count} without a pool; first {_truncate(key)}: {nodes} nodes, {reason}"
        claims.append(ConditionUpdate("NotAdmitted", "True", reason, text))
    if admission.name_conflicts:
        names = _listed(admission.name_conflicts)
        text = f"pools that this generator did not make, or of other keys, have the names: {names}"
        claims.append(ConditionUpdate("NameTaken", "True", "NotOurs", f"{text}; they are not touched"))
    return claims


def _limit_conditions(subject: GeneratorEntry) -> list[ConditionUpdate]:
    claims = []
    if more := subject.index.nodes_over_key_limit():
        text = f"more than {MAX_KEYS} keys, of which the first by name count, are offered by: {_listed(more)}"
        claims.append(ConditionUpdate("TooManyKeys", "True", "TooManyKeys", text))
    if cut := subject.index.nodes_with_truncated_search():
        text = f"too many sets of languages to find them all; those found count, of: {_listed(cut)}"
        claims.append(ConditionUpdate("LanguageSetsTruncated", "True", "TooManySets", text))
    return claims


def _idle_status(subject: GeneratorEntry, now: str) -> GeneratorStatus:
    generator = subject.generator
    claim = ConditionUpdate("Ready", "False", "InvalidSpec", (subject.problem or "")[:1024])
    if generator.paused:
        claim = ConditionUpdate("Ready", "False", "Paused", "annotation hotpool.dev/paused: its pools stay as they are")
    generation = generator.meta.generation
    conditions = set_conditions([claim], _stored_conditions(generator), generation, now)
    return generator.status.model_copy(
        update={"observed_generation": generation, "conditions": conditions, "ready": "False"}
    )


def _stored_conditions(generator: Generator) -> dict[str, tuple[str, str]]:
    return {c.type: (c.status, c.last_transition_time) for c in generator.status.conditions}


def _listed(names: tuple[str, ...] | list[str]) -> str:
    more = len(names) - _MAX_NAMED
    return ", ".join(names[:_MAX_NAMED]) + (f" and {more} more" if more > 0 else "")


def _truncate(key: str) -> str:
    return key if len(key) <= _MAX_KEY_LENGTH else f"{key[: _MAX_KEY_LENGTH - 1]}…"
