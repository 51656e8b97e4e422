"""Generators as core values, with nodes, pools and plans."""

from dataclasses import replace
from typing import Any

from tests.support.builders import pool

from hotpool.core.generators.admission import key_rule, pool_name, pool_spec
from hotpool.core.generators.key_index import GeneratorEntry
from hotpool.core.model import Generator, NodeView, Pool
from hotpool.core.planning.generator_plan import GeneratorPlan, plan_generator

NOW = "2026-01-01T00:00:00.000000Z"


def generator_entry(by: Generator, *views: NodeView) -> GeneratorEntry:
    """Return the entry of a generator with nodes n0, n1, ..."""
    entry = GeneratorEntry(by)
    for number, view in enumerate(views):
        entry.update(f"n{number}", view)
    return entry


def generated_pool(by: Generator, key: str, **more: Any) -> Pool:
    """Return the stored pool of a generator's key."""
    name = pool_name(by.meta.name, key)
    spec = pool_spec(by.meta.name, key, key_rule(by.spec))
    return replace(pool(name, **more), spec=spec, owner=by.meta.uid)


def plan_for(subject: GeneratorEntry, *pools: Pool, moment: float = 0.0) -> GeneratorPlan:
    """Return the plan for a fleet with exactly these pools."""
    uid = subject.generator.meta.uid
    own = {item.meta.name: item for item in pools if item.owner == uid}
    while True:
        plan = plan_generator(subject, own, {item.meta.name for item in pools}, moment, NOW)
        if plan.recheck_at != moment:
            return plan
