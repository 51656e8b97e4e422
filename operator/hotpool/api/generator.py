"""NodePoolGenerator: a rule that generates pools from the capabilities of the nodes (requirement D5).

People write `spec`, the operator `status`.
"""

from typing import Annotated, ClassVar, Final

from pydantic import Field, StringConstraints

from hotpool.api.meta import MAX_CONDITIONS, ApiModel, Condition, Count, Label63, Text, Tristate, map_by
from hotpool.api.pool import HASH_MAX, PoolTemplateSpec

LANGUAGES_MAX: Final = 8
"""Maximum size of a language set: its 56 ordered pairs must fit into a pool's languagePairs.allOf."""


class LanguagePairsRule(ApiModel):
    """One pool for each directed pair `src-tgt` that nodes offer."""

    many_to_one: bool = False
    """True: also one pool `*-tgt` for each target language, for sources that are detected later."""
    semantic: bool = False
    """True: both languages must also be languages of the node's semantic services."""


class LanguageSetsRule(ApiModel):
    """One pool for each set of languages that nodes offer in all directions.

    The sets are the maximal ones of each node. A node is also a member of the smaller sets that come from other nodes.
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
    """Minimum number of languages in a set."""
    max_languages: Annotated[int, Field(ge=2, le=LANGUAGES_MAX)] = 4
    """Maximum number of languages in a set. Larger sets are reported in status.notAdmitted."""


class AttributeValuesRule(ApiModel):
    """One pool for each value of an attribute of a type, for example for each model."""

    type: Label63
    """Type whose services declare the attribute."""
    key: Annotated[str, StringConstraints(min_length=1, max_length=63)]
    """Name of the attribute."""


class HashRule(ApiModel):
    """A fixed number of hash buckets, one pool for each. FNV-1a-64 of name and seed selects the bucket of a node."""

    count: Annotated[int, Field(ge=1, le=HASH_MAX)]
    """Number of hash buckets. A bucket without nodes gets no pool."""
    seed: Annotated[str, StringConstraints(max_length=63)] = ""
    """Another seed gives another distribution."""


class GeneratorRule(ApiModel):
    """The rule that generates the pools. Exactly one field must be set."""

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
    """One pool for each of a fixed number of hash buckets."""


class PoolTemplate(ApiModel):
    """Template of the generated pools."""

    model_config: ClassVar = {
        "json_schema_extra": {
            "x-kubernetes-validations": [
                {
                    "rule": "!has(self.spec) || !has(self.spec.service) || !has(self.spec.service.name)",
                    "message": "spec.service.name is not allowed in a template: each Service has its pool's name",
                }
            ]
        }
    }

    spec: PoolTemplateSpec = PoolTemplateSpec()
    """Spec of the generated pools, as of a NodePool. The rule adds its own requirement."""


class GeneratorSpec(ApiModel):
    """Rule, template and limits of the generator."""

    rule: GeneratorRule
    """The rule that generates the pools. Exactly one field must be set."""
    template: PoolTemplate = PoolTemplate()
    """Template of the generated pools."""
    min_nodes: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    """Minimum number of members of a pool. Smaller pools are not admitted."""
    max_pools: Annotated[int, Field(ge=1, le=10_000)] = 200
    """Maximum number of pools of this generator. Further pools are reported in status.notAdmitted."""
    grace_seconds: Annotated[int, Field(ge=0, le=7 * 24 * 3600)] = 600
    """Time in seconds after which a pool without members is deleted."""


class NotAdmitted(ApiModel):
    """A pool that the generator did not admit."""

    key: Text
    """Key of the pool, for example sw-zu. A very long key is truncated."""
    nodes: Count
    """Number of nodes that would be its members."""
    reason: Text
    """MinNodes, MaxPools, MaxLanguages, or NameTaken: a pool with the same name does not belong to this generator."""


class GeneratorStatus(ApiModel):
    """Observed state of the generator, written by the operator."""

    observed_generation: Annotated[int | None, Field(ge=0)] = None
    """The metadata.generation that this status is based on."""
    pools: Count | None = None
    """Number of pools of this generator."""
    not_admitted: Annotated[tuple[NotAdmitted, ...], Field(max_length=20)] = ()
    """The first pools by rank that were not admitted, at most 20."""
    not_admitted_count: Count | None = None
    """Number of all pools that were not admitted."""
    conditions: Annotated[
        tuple[Condition, ...],
        Field(max_length=MAX_CONDITIONS, json_schema_extra=map_by("type")),
    ] = ()
    """Condition Ready, and others that apply."""
    ready: Tristate | None = None
    """Status of condition Ready, for field selectors and columns."""


class NodePoolGenerator(ApiModel):
    """A rule that generates NodePools from the capabilities of the nodes, and deletes them when they stay empty."""

    model_config: ClassVar = {
        "json_schema_extra": {
            "x-kubernetes-validations": [
                {
                    "rule": "!has(self.spec.template) || !has(self.spec.template.spec)"
                    " || !has(self.spec.template.spec.service) || self.metadata.name.matches('^[a-z]')",
                    "message": "spec.template.spec.service is not allowed: the name of a Service begins with a letter, "
                    "and those of the pools, which begin with the generator's, do not",
                }
            ]
        }
    }

    spec: GeneratorSpec
    """Rule, template and limits of the generator."""
    status: GeneratorStatus | None = None
    """Observed state of the generator, written by the operator."""
