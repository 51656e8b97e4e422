"""The desired result for one generator: pools to make, to put right and to remove, and its status (behaviour D5).

Called by the reconciler. Pure; which keys nodes offer is counted by `core.subjects`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from hotpool.api.generator import GeneratorStatus, NotAdmitted
from hotpool.api.pool import PoolSpec
from hotpool.core.conditions import Claim, settle
from hotpool.core.generate import Admission, admit, pool_name, pool_spec, supported
from hotpool.core.model import Generator, Pool
from hotpool.core.subjects import GeneratorSubject

_SHOWN = 20


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
    """When the next grace ends (monotonic seconds)."""


def plan_generator(subject: GeneratorSubject, pools: Mapping[str, Pool], moment: float, now: str) -> GeneratorPlan:
    """The whole desired result. `pools`: all pools of the fleet by name; `moment`: monotonic; `now`: RFC 3339."""
    generator = subject.generator
    if generator.paused or not supported(generator.spec.rule):
        return GeneratorPlan({}, {}, (), _idle_status(generator, now), None)
    ours = {name: pool for name, pool in pools.items() if pool.owner == generator.meta.uid}
    keys = {name: key for name, pool in ours.items() if (key := _key(generator, pool))}
    empty = subject.empty_since([key for key in keys.values() if not subject.nodes[key]], moment)
    grace = generator.spec.grace_seconds
    staying = [key for key in keys.values() if key not in empty or moment - empty[key] < grace]
    admission = admit(subject.nodes, staying, generator.spec)
    wanted = {pool_name(generator.meta.name, key): key for key in admission.admitted}
    specs = {name: pool_spec(generator.meta.name, key, generator.spec) for name, key in wanted.items()}
    ends = [since + grace for key, since in empty.items() if key in staying]
    return GeneratorPlan(
        create={name: spec for name, spec in specs.items() if name not in pools},
        correct={name: spec for name, spec in specs.items() if name in ours and ours[name].spec != spec},
        remove=tuple(pool for name, pool in ours.items() if name not in wanted),
        status=_status(generator, admission, now),
        recheck_at=min(ends, default=None),
    )


def _key(generator: Generator, pool: Pool) -> str | None:
    """The key in the pool's spec, where the pool's name is the name of that key."""
    made = pool.spec.generated
    return made.key if made and pool_name(generator.meta.name, made.key) == pool.meta.name else None


def _status(generator: Generator, admission: Admission, now: str) -> GeneratorStatus:
    pools, left_out = len(admission.admitted), len(admission.left_out)
    claim = Claim("Ready", "True", "Generated", f"{pools} pools, {left_out} not admitted")
    return GeneratorStatus(
        observed_generation=generator.meta.generation,
        pools=pools,
        not_admitted=tuple(NotAdmitted(key=key, nodes=n, reason=why) for key, n, why in admission.left_out[:_SHOWN]),
        not_admitted_count=left_out,
        conditions=settle([claim], _before(generator), generator.meta.generation, now),
        ready="True",
    )


def _idle_status(generator: Generator, now: str) -> GeneratorStatus:
    claim = Claim("Ready", "False", "RuleNotSupported", "this version makes pools by languagePairs only")
    if generator.paused:
        claim = Claim("Ready", "False", "Paused", "annotation hotpool.dev/paused: its pools stay as they are")
    conditions = settle([claim], _before(generator), generator.meta.generation, now)
    generation = generator.meta.generation
    return generator.status.model_copy(
        update={"observed_generation": generation, "conditions": conditions, "ready": "False"}
    )


def _before(generator: Generator) -> dict[str, tuple[str, str]]:
    return {c.type: (c.status, c.last_transition_time) for c in generator.status.conditions}
