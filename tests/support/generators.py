"""Generators as the core knows them: what nodes offer, the pools made of it, plans."""

from dataclasses import replace
from typing import Any

from tests.support.builders import pool

from hotpool.core.generators.admission import key_rule, pool_name, pool_spec
from hotpool.core.generators.key_index import GeneratorEntry
from hotpool.core.model import Generator, NodeView, Pool
from hotpool.core.planning.generator_plan import GeneratorPlan, plan_generator

NOW = "2026-01-01T00:00:00.000000Z"


def offered(by: Generator, *views: NodeView) -> GeneratorEntry:
    """A generator to which nodes n0, n1, ... offer what they can."""
    found = GeneratorEntry(by)
    for number, seen in enumerate(views):
        found.update(f"n{number}", seen)
    return found


def made(by: Generator, key: str, **more: Any) -> Pool:
    """The pool that the generator makes for a key, as stored."""
    name = pool_name(by.meta.name, key)
    spec = pool_spec(by.meta.name, key, key_rule(by.spec))
    return replace(pool(name, **more), spec=spec, owner=by.meta.uid)


def planned(subject: GeneratorEntry, *pools: Pool, moment: float = 0.0) -> GeneratorPlan:
    """The plan when these are all pools of the fleet."""
    uid = subject.generator.meta.uid
    own = {item.meta.name: item for item in pools if item.owner == uid}
    while True:
        plan = plan_generator(subject, own, {item.meta.name for item in pools}, moment, NOW)
        if plan.recheck_at != moment:
            return plan
