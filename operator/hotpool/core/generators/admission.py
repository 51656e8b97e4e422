"""Names and specs of generated pools, and which keys are admitted (requirements D5, D6).

Pure.
"""

import hashlib
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from hotpool.api.generator import GeneratorSpec
from hotpool.api.meta import POOL_NAME_MAX
from hotpool.api.pool import MAX_ATTRIBUTES, MAX_PAIRS, MAX_TYPES, MAX_VALUES, Generated, PoolSpec, PoolTemplateSpec
from hotpool.core.generators.key_ranking import KeyRanking
from hotpool.core.generators.key_rule import KeyRule
from hotpool.core.generators.language_rules import ANY, PairRule, SetRule
from hotpool.core.generators.value_rules import HashSlotRule, ValueRule

MAX_LISTED: Final = 20
"""Keys that a status names; of the others it says the number."""
_HASH_LENGTH: Final = 8

RankedKey = tuple[str, int, str]
"""Key, nodes that would be in its pool, reason."""


@dataclass(frozen=True, slots=True)
class Admission:
    """The keys that a generator has pools for, and those left out."""

    admitted: tuple[str, ...]
    not_admitted: tuple[RankedKey, ...]
    """The first left out, by rank."""
    not_admitted_count: int
    """All left out."""
    name_conflicts: tuple[str, ...]
    """Names of pools that are not this generator's, or another key's."""


def admit(ranking: KeyRanking, existing: Collection[str], spec: GeneratorSpec, names: "NameAllocator") -> Admission:
    """What has its pool keeps it, the others fill up to maxPools by rank. `existing`: keys whose pools stay for now."""
    kept = dict.fromkeys(existing)
    present = sum(key in ranking.counts for key in kept)
    new: list[str] = []
    shown: list[RankedKey] = []
    taken: list[str] = []
    for key, nodes in ranking.walk(without=kept):
        room = len(kept) + len(new) < spec.max_pools and nodes >= spec.min_nodes
        if not room and len(shown) >= MAX_LISTED:
            break
        if room and names.claim(key):
            new.append(key)
            continue
        reason = "MinNodes" if nodes < spec.min_nodes else "NameTaken" if room else "MaxPools"
        shown.append((key, nodes, reason))
        if reason == "NameTaken":
            taken.append(names.of(key))
    left_out = len(ranking) - present - len(new)
    return Admission((*kept, *new), tuple(shown[:MAX_LISTED]), left_out, tuple(taken))


def with_refused_keys(admission: Admission, barred: KeyRanking, reason: Callable[[str], str | None]) -> Admission:
    """The same with the keys that the rule itself refuses, in the order of rank."""
    first = [(key, nodes, reason(key) or "") for key, nodes in islice(barred.walk(), MAX_LISTED)]
    shown = sorted((*admission.not_admitted, *first), key=lambda item: (-item[1], item[0]))[:MAX_LISTED]
    return Admission(
        admission.admitted, tuple(shown), admission.not_admitted_count + len(barred), admission.name_conflicts
    )


class NameAllocator:
    """Names of keys of one generator: no two keys have one name, and none that a stranger's pool has."""

    def __init__(self, of: Callable[[str], str], free: Callable[[str], bool]) -> None:
        self.of = of
        self._free = free
        self._claimed: dict[str, str] = {}

    def claim(self, key: str) -> bool:
        """Whether the key can have its name; the first to claim it has it."""
        name = self.of(key)
        return self._free(name) and self._claimed.setdefault(name, key) == key


def pool_name(generator: str, key: str) -> str:
    """`<generator>-<slug>-<8 hex>`, at most 57 characters; the same key has the same name for ever (requirement D6)."""
    slug = re.sub(r"[^a-z0-9]+", "-", key.lower().replace(ANY, "any")).strip("-")
    digest = hashlib.sha256(f"{generator}/{key}".encode()).hexdigest()[:_HASH_LENGTH]
    room = POOL_NAME_MAX - len(generator) - _HASH_LENGTH - 2
    return "-".join(part for part in (generator, slug[: max(room, 0)].strip("-"), digest) if part)


def pool_spec(generator: str, key: str, rule: KeyRule[Any]) -> PoolSpec:
    """The whole spec of the pool for one key: the template, and the rule's own requirement."""
    template = rule.template
    return PoolSpec(
        **{name: getattr(template, name) for name in type(template).model_fields if name != "requires"},
        requires=rule.requirements(key),
        generated=Generated(by=generator, kind=rule.kind(key), key=key),
    )


def key_rule(spec: GeneratorSpec) -> KeyRule[Any]:
    """The rule of a generator whose spec has no problem (see `problem`)."""
    rule, template = spec.rule, spec.template.spec
    if rule.language_pairs:
        return PairRule(rule.language_pairs, template)
    if rule.language_sets:
        return SetRule(rule.language_sets, template)
    if rule.attribute_values:
        return ValueRule(rule.attribute_values, template)
    if rule.hash:
        return HashSlotRule(rule.hash, template)
    raise ValueError("a generator without a rule")


def spec_error(spec: GeneratorSpec) -> str | None:
    """Why no pool can be made by rule and template together, though each is valid alone."""
    rule, template = spec.rule, spec.template.spec
    if (
        sum(item is not None for item in (rule.language_pairs, rule.language_sets, rule.attribute_values, rule.hash))
        != 1
    ):
        return "spec.rule: exactly one of languagePairs, languageSets, attributeValues and hash is required"
    if rule.hash and template.requires.hash:
        return "spec.template: requires.hash is the rule's own, a pool has only one"
    sets = rule.language_sets
    if sets and sets.min_languages > sets.max_languages:
        return "spec.rule.languageSets: minLanguages is larger than maxLanguages"
    own = sets.max_languages * (sets.max_languages - 1) if sets else 1 if rule.language_pairs else 0
    pairs = template.requires.language_pairs
    if own and pairs and len(pairs.all_of) + own > MAX_PAIRS:
        return f"spec.template: languagePairs.allOf leaves no room for the rule's {own} pairs, {MAX_PAIRS} in all"
    values = rule.attribute_values
    return _capacity_error(template, values.type, values.key) if values else None


def _capacity_error(template: PoolTemplateSpec, type_: str, key: str) -> str | None:
    types = {item.type: item for item in template.requires.types}
    if type_ not in types:
        full = len(types) >= MAX_TYPES
        return f"spec.template: requires.types leaves no room for {type_}, {MAX_TYPES} in all" if full else None
    attributes = {item.key: item for item in types[type_].attributes}
    if key not in attributes:
        full = len(attributes) >= MAX_ATTRIBUTES
        return f"spec.template: the attributes of {type_} leave no room for {key}" if full else None
    full = len(attributes[key].all_of or ()) >= MAX_VALUES
    return f"spec.template: allOf of {key} leaves no room for a value" if full else None
