"""Names and specs of generated pools, and admission of keys (requirements D5, D6).

Pure.
"""

import hashlib
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
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
"""Keys named in a status; of the others it has the number."""
_HASH_LENGTH: Final = 8

NotAdmittedKey = tuple[str, int, str]
"""Key, number of nodes that offer it, reason."""


@dataclass(frozen=True, slots=True)
class Admission:
    """Keys that have a pool, and keys that have none."""

    admitted: tuple[str, ...]
    not_admitted: tuple[NotAdmittedKey, ...]
    """The first keys that are not admitted, by rank."""
    not_admitted_count: int
    """Number of all keys that are not admitted."""
    name_conflicts: tuple[str, ...]
    """Names that pools of other owners, or of other keys, have already."""


def admit(ranking: KeyRanking, existing: Collection[str], spec: GeneratorSpec, names: "NameAllocator") -> Admission:
    """Admit the `existing` keys, whose pools stay, then others by rank up to maxPools."""
    kept = dict.fromkeys(existing)
    present = sum(key in ranking.counts for key in kept)
    new: list[str] = []
    not_admitted: list[NotAdmittedKey] = []
    conflicts: list[str] = []
    for key, nodes in ranking.walk(without=kept):
        room = len(kept) + len(new) < spec.max_pools and nodes >= spec.min_nodes
        if not room and len(not_admitted) >= MAX_LISTED:
            break
        if room and names.claim(key):
            new.append(key)
            continue
        reason = "MinNodes" if nodes < spec.min_nodes else "NameTaken" if room else "MaxPools"
        not_admitted.append((key, nodes, reason))
        if reason == "NameTaken":
            conflicts.append(names.name_of(key))
    count = len(ranking) - present - len(new)
    return Admission((*kept, *new), tuple(not_admitted[:MAX_LISTED]), count, tuple(conflicts))


def with_refused_keys(admission: Admission, refused: KeyRanking, reason: Callable[[str], str | None]) -> Admission:
    """Return the admission with the keys that the rule refuses added to those not admitted, by rank."""
    first = [(key, nodes, reason(key) or "") for key, nodes in islice(refused.walk(), MAX_LISTED)]
    listed = sorted((*admission.not_admitted, *first), key=lambda item: (-item[1], item[0]))[:MAX_LISTED]
    count = admission.not_admitted_count + len(refused)
    return Admission(admission.admitted, tuple(listed), count, admission.name_conflicts)


@dataclass(frozen=True, slots=True)
class NameAllocator:
    """Pool names of one generator's keys: no two keys share one, and none belongs to a pool of another owner."""

    name_of: Callable[[str], str]
    _is_free: Callable[[str], bool]
    _claimed: dict[str, str] = field(default_factory=dict)

    def claim(self, key: str) -> bool:
        """Assign the key its name. Return False if a pool of another owner, or an earlier key, has it."""
        name = self.name_of(key)
        return self._is_free(name) and self._claimed.setdefault(name, key) == key


def pool_name(generator: str, key: str) -> str:
    """Return `<generator>-<slug>-<8 hex>`, at most 57 characters. A key's name must never change (D6)."""
    slug = re.sub(r"[^a-z0-9]+", "-", key.lower().replace(ANY, "any")).strip("-")
    digest = hashlib.sha256(f"{generator}/{key}".encode()).hexdigest()[:_HASH_LENGTH]
    room = POOL_NAME_MAX - len(generator) - _HASH_LENGTH - 2
    return "-".join(part for part in (generator, slug[: max(room, 0)].strip("-"), digest) if part)


def pool_spec(generator: str, key: str, rule: KeyRule[Any]) -> PoolSpec:
    """Return the spec of the pool for one key: the template, and the requirement of the rule."""
    template = rule.template
    return PoolSpec(
        **{name: getattr(template, name) for name in type(template).model_fields if name != "requires"},
        requires=rule.requirements(key),
        generated=Generated(by=generator, kind=rule.kind(key), key=key),
    )


def key_rule(spec: GeneratorSpec) -> KeyRule[Any]:
    """Return the rule of a generator. Raise ValueError if its spec has none; check with `spec_error` first."""
    rule, template = spec.rule, spec.template.spec
    if rule.language_pairs:
        return PairRule(rule.language_pairs, template)
    if rule.language_sets:
        return SetRule(rule.language_sets, template)
    if rule.attribute_values:
        return ValueRule(rule.attribute_values, template)
    if rule.hash:
        return HashSlotRule(rule.hash, template)
    raise ValueError("the generator has no rule")


def spec_error(spec: GeneratorSpec) -> str | None:
    """Return the reason why rule and template are invalid together, or None."""
    rule, template = spec.rule, spec.template.spec
    if (
        sum(item is not None for item in (rule.language_pairs, rule.language_sets, rule.attribute_values, rule.hash))
        != 1
    ):
        return "spec.rule: exactly one of languagePairs, languageSets, attributeValues and hash is required"
    if rule.hash and template.requires.hash:
        return "spec.template: requires.hash conflicts with spec.rule.hash, a pool has only one"
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
