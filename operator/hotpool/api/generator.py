"""NodePoolGenerator: a rule that makes pools from what the nodes offer (requirement D5).

`spec` is written by people, `status` by the operator.
"""

from typing import Annotated, ClassVar, Final

from pydantic import Field, StringConstraints

from hotpool.api.meta import ApiModel, Condition, Count, Label63, Text, Tristate, map_by
from hotpool.api.pool import HASH_MAX, PoolTemplateSpec

LANGUAGES_MAX: Final = 8
"""Languages of a set at most: its 56 ordered pairs must fit into a pool's languagePairs.allOf."""


class LanguagePairsRule(ApiModel):
    """One pool for each directed pair `src-tgt` that nodes offer."""

    many_to_one: bool = False
    """True: also one pool `*-tgt` for each target, for sources that are detected later."""
    semantic: bool = False
    """True: both languages must also be languages of the node's semantic services."""


class LanguageSetsRule(ApiModel):
    """One pool for each set of languages that nodes offer in all directions.

    A set is observed where it is as large as a node's pairs allow; a node is also in the smaller ones that others have.
    """

    model_config: ClassVar = {
        "json_schema_extra": {
            "x-kubernetes-validations": [
                {
                    "rule": "self.minLanguages <= self.maxLanguages",
                    "message": "minLanguages must not be larger than maxLanguages",
                }
            ]
        }
    }

    min_languages: Annotated[int, Field(ge=2, le=LANGUAGES_MAX)] = 2
    """Smallest set."""
    max_languages: Annotated[int, Field(ge=2, le=LANGUAGES_MAX)] = 4
    """Largest set; larger ones are reported as not admitted."""


class AttributeValuesRule(ApiModel):
    """One pool for each value of an attribute of a type, for example for each model."""

    type: Label63
    """The type whose services declare the attribute."""
    key: Annotated[str, StringConstraints(min_length=1, max_length=63)]
    """The attribute."""


class HashRule(ApiModel):
    """A fixed number of pools; a node is in the one that FNV-1a-64 of its name and the seed gives."""

    count: Annotated[int, Field(ge=1, le=HASH_MAX)]
    """Number of pools; one that no node is in is not made."""
    seed: Annotated[str, StringConstraints(max_length=63)] = ""
    """Another seed gives another distribution."""


class GeneratorRule(ApiModel):
    """What makes the pools; exactly one."""

    model_config: ClassVar = {
        "json_schema_extra": {
            "x-kubernetes-validations": [
                {
                    "rule": (
                        "[has(self.languagePairs), has(self.languageSets), has(self.attributeValues), has(self.hash)]"
                        ".filter(x, x).size() == 1"
                    ),
                    "message": "exactly one of languagePairs, languageSets, attributeValues and hash is required",
                }
            ]
        }
    }

    language_pairs: LanguagePairsRule | None = None
    """One pool for each directed language pair."""
    language_sets: LanguageSetsRule | None = None
    """One pool for each set of languages."""
    attribute_values: AttributeValuesRule | None = None
    """One pool for each value of an attribute."""
    hash: HashRule | None = None
    """A fixed number of pools."""


class PoolTemplate(ApiModel):
    """The pools' common spec."""

    spec: PoolTemplateSpec = PoolTemplateSpec()
    """As the spec of a NodePool; the rule adds its own requirement."""


class GeneratorSpec(ApiModel):
    """The rule and its limits."""

    rule: GeneratorRule
    """What makes the pools; exactly one."""
    template: PoolTemplate = PoolTemplate()
    """What the pools have in common."""
    min_nodes: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    """A pool is admitted when at least this many nodes would be in it."""
    max_pools: Annotated[int, Field(ge=1, le=10_000)] = 200
    """Pools of this generator at most; those left out are reported."""
    grace_seconds: Annotated[int, Field(ge=0, le=7 * 24 * 3600)] = 600
    """A pool that was empty for this long is removed."""


class NotAdmitted(ApiModel):
    """A pool that the generator did not make."""

    key: Text
    """Its key, for example sw-zu; cut where it is very long."""
    nodes: Count
    """Nodes that would be in it."""
    reason: Text
    """MinNodes, MaxPools, MaxLanguages, or NameTaken: a pool of that name is not of this generator."""


class GeneratorStatus(ApiModel):
    """What the operator observes of the generator."""

    observed_generation: Annotated[int | None, Field(ge=0)] = None
    """The metadata.generation that this status was computed from."""
    pools: Count | None = None
    """Pools of this generator."""
    not_admitted: Annotated[tuple[NotAdmitted, ...], Field(max_length=20)] = ()
    """The first pools by rank that were not admitted."""
    not_admitted_count: Count | None = None
    """All pools that were not admitted."""
    conditions: Annotated[
        tuple[Condition, ...],
        Field(max_length=16, json_schema_extra=map_by("type")),
    ] = ()
    """Ready, and others that hold."""
    ready: Tristate | None = None
    """The status of condition Ready, for field selectors and columns."""


class NodePoolGenerator(ApiModel):
    """A rule that makes NodePools from what the nodes offer, and removes them when nobody offers it any more."""

    spec: GeneratorSpec
    """The rule and its limits."""
    status: GeneratorStatus | None = None
    """What the operator observes of the generator."""
