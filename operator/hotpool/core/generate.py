"""Which pools a generator makes (behaviour D5, D6): keys that nodes offer, admission, names and specs.

Called by `core.state` (keys of a node) and `core.plan` (admission). Pure.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from hotpool.api.generator import GeneratorRule, GeneratorSpec
from hotpool.api.meta import POOL_NAME_MAX
from hotpool.api.pool import Generated, LanguageRequirement, PoolSpec
from hotpool.core.judge import Gate, judge
from hotpool.core.languages import target
from hotpool.core.model import Liveness, NodeView

ANY: Final = "*"
_HASH_LENGTH: Final = 8

RuleKind = Literal["LanguagePair", "ManyToOne"]


@dataclass(frozen=True, slots=True)
class Admission:
    """The keys that a generator has pools for, and those left out with the nodes they would have and why."""

    admitted: tuple[str, ...]
    left_out: tuple[tuple[str, int, str], ...]


def supported(rule: GeneratorRule) -> bool:
    """Whether this version makes pools by the rule."""
    return rule.language_pairs is not None


def keys(view: NodeView, spec: GeneratorSpec) -> frozenset[str]:
    """The keys of the pools that the node would be in; empty where the template's own requirements do not hold.

    A template that requires nothing is no obstacle: the rule adds the requirement.
    """
    rule = spec.rule.language_pairs
    verdict = judge(view, spec.template.spec)
    if (
        rule is None
        or view.liveness is Liveness.OFFLINE
        or (verdict.state is None and verdict.gate is not Gate.NOTHING_REQUIRED)
    ):
        return frozenset()
    offered = view.semantic_pairs if rule.semantic else view.pairs
    return offered | {f"{ANY}-{target(pair)}" for pair in offered} if rule.many_to_one else offered


def admit(nodes: Mapping[str, int], existing: Iterable[str], spec: GeneratorSpec) -> Admission:
    """Ranks keys by distinct nodes (descending), then name; what has its pool keeps it, the rest fill up to maxPools.

    `nodes`: key → distinct nodes that offer it. `existing`: keys that have a pool and may not go yet.
    """
    kept = dict.fromkeys(existing)
    left_out: list[tuple[str, int, str]] = []
    for key, count in sorted(nodes.items(), key=lambda item: (-item[1], item[0])):
        if key in kept:
            continue
        if count < spec.min_nodes:
            left_out.append((key, count, "MinNodes"))
        elif len(kept) >= spec.max_pools:
            left_out.append((key, count, "MaxPools"))
        else:
            kept[key] = None
    return Admission(tuple(kept), tuple(left_out))


def pool_name(generator: str, key: str) -> str:
    """`<generator>-<slug>-<8 hex>`, at most 57 characters; the same key has the same name for ever (behaviour D6)."""
    slug = re.sub(r"[^a-z0-9]+", "-", key.lower().replace(ANY, "any")).strip("-")
    digest = hashlib.sha256(f"{generator}/{key}".encode()).hexdigest()[:_HASH_LENGTH]
    room = POOL_NAME_MAX - len(generator) - _HASH_LENGTH - 2
    return "-".join(part for part in (generator, slug[: max(room, 0)].strip("-"), digest) if part)


def pool_spec(generator: str, key: str, spec: GeneratorSpec) -> PoolSpec:
    """The whole spec of the pool for one key: the template, and the rule's own requirement."""
    rule = spec.rule.language_pairs
    if rule is None:
        raise ValueError("the generator has no rule that this version supports")
    template = spec.template.spec
    kind: RuleKind = "ManyToOne" if key.startswith(ANY) else "LanguagePair"
    pairs = template.requires.language_pairs
    wanted = LanguageRequirement(
        all_of=tuple(dict.fromkeys((*(pairs.all_of if pairs else ()), key))),
        semantic=rule.semantic or (pairs is not None and pairs.semantic),
    )
    return PoolSpec(
        **{name: getattr(template, name) for name in type(template).model_fields if name != "requires"},
        requires=template.requires.model_copy(update={"language_pairs": wanted}),
        generated=Generated(by=generator, kind=kind, key=key),
    )
