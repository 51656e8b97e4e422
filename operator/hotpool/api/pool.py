"""NodePool: which nodes belong together, by rule.

`spec` is written by people or a generator, `status` by the operator and never grows with the number of nodes.
"""

from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field, StringConstraints
from pydantic.config import JsonDict

from hotpool.api.meta import (
    SLICE_MAX,
    ApiModel,
    Condition,
    Count,
    Label63,
    NodeName,
    PairOrAny,
    Text,
    Timestamp,
    Tristate,
    map_by,
)

_SET: JsonDict = {"x-kubernetes-list-type": "set"}

HASH_MAX: Final = 1024
"""Parts at most into which a hash divides the nodes."""
MAX_PAIRS: Final = 64
MAX_VALUES: Final = 64
MAX_TYPES: Final = 32
MAX_ATTRIBUTES: Final = 16

GeneratedKind = Literal["LanguagePair", "ManyToOne", "LanguageSet", "AttributeValue", "Hash"]
"""Which rule of a generator made a pool."""

LabelKey = Annotated[str, StringConstraints(min_length=1, max_length=317)]
LabelValue = Annotated[str, StringConstraints(max_length=63)]
Value = Annotated[str, StringConstraints(min_length=1, max_length=253)]


def _rule(rule: str, message: str) -> JsonDict:
    return {"x-kubernetes-validations": [{"rule": rule, "message": message}]}


class AttributeRequirement(ApiModel):
    """A condition on one declared attribute; `anyOf` and `allOf` must both hold where both are given."""

    model_config: ClassVar = {
        "json_schema_extra": _rule(
            "has(self.anyOf) || has(self.allOf)", "anyOf or allOf is required: the values to match"
        )
    }

    key: Annotated[str, StringConstraints(min_length=1, max_length=63)]
    """The attribute: a declared key, or one of languages, model, version, device."""
    any_of: Annotated[tuple[Value, ...] | None, Field(min_length=1, max_length=MAX_VALUES, json_schema_extra=_SET)] = (
        None
    )
    """At least one of these values is declared."""
    all_of: Annotated[tuple[Value, ...] | None, Field(min_length=1, max_length=MAX_VALUES, json_schema_extra=_SET)] = (
        None
    )
    """All of these values are declared."""


class TypeRequirement(ApiModel):
    """A type that must be ready, by at least one service that meets all attribute requirements."""

    type: Label63
    """The type: asr, nmt, tts, semantic, llm, ... A type that no node has yet is legal."""
    attributes: Annotated[
        tuple[AttributeRequirement, ...], Field(max_length=MAX_ATTRIBUTES, json_schema_extra=map_by("key"))
    ] = ()
    """Conditions on the attributes of one and the same service of the type."""


class LanguageRequirement(ApiModel):
    """Directed language pairs that the node must offer (requirement B4)."""

    all_of: Annotated[tuple[PairOrAny, ...], Field(min_length=1, max_length=MAX_PAIRS, json_schema_extra=_SET)]
    """Pairs `src-tgt`; `*-tgt` means from at least one source."""
    semantic: bool = False
    """True: both languages of a pair must also be languages of the node's semantic services."""


class HashRequirement(ApiModel):
    """A part of all nodes, by FNV-1a-64 over the node's name, a zero byte and the seed, modulo the count."""

    model_config: ClassVar = {"json_schema_extra": _rule("self.index < self.count", "index must be smaller than count")}

    count: Annotated[int, Field(ge=1, le=HASH_MAX)]
    """Number of parts."""
    seed: Annotated[str, StringConstraints(max_length=63)] = ""
    """Another seed gives another distribution."""
    index: Annotated[int, Field(ge=0, le=HASH_MAX - 1)]
    """Which part, from 0."""


class LabelExpression(ApiModel):
    """A label requirement, as metav1.LabelSelectorRequirement."""

    model_config: ClassVar = {
        "json_schema_extra": _rule(
            "self.operator in ['Exists', 'DoesNotExist'] ? !has(self.values) || self.values.size() == 0"
            " : has(self.values) && self.values.size() > 0",
            "In and NotIn need values; Exists and DoesNotExist take none",
        )
    }

    key: LabelKey
    """Label key."""
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    """How the label relates to the values."""
    values: Annotated[tuple[LabelValue, ...], Field(max_length=64)] = ()
    """Values for In and NotIn."""


class LabelSelector(ApiModel):
    """Labels of the NodeCapability that must match, as metav1.LabelSelector."""

    match_labels: Annotated[dict[LabelKey, LabelValue], Field(max_length=32, default_factory=dict)]
    """Labels that must have exactly these values."""
    match_expressions: Annotated[tuple[LabelExpression, ...], Field(max_length=32)] = ()
    """Requirements that must all hold."""


class Requirements(ApiModel):
    """What a node must have to be a member; everything given must hold (requirement D2)."""

    types: Annotated[tuple[TypeRequirement, ...], Field(max_length=MAX_TYPES, json_schema_extra=map_by("type"))] = ()
    """Types that must be ready."""
    language_pairs: LanguageRequirement | None = None
    """Language pairs that the node must offer."""
    hash: HashRequirement | None = None
    """Which part of the nodes, by a hash of their names."""
    node_selector: LabelSelector | None = None
    """Labels that the NodeCapability must have."""
    match_all: bool = False
    """True: empty requirements match every reporting node; without it they match none."""


class Brake(ApiModel):
    """How many members of the pool silence may remove at once (requirement D8)."""

    max_silent_percent: Annotated[int, Field(ge=0, le=100)] = 30
    """Silent members are removed only while they are at most this part, in percent, of all."""


class PoolTemplateSpec(ApiModel):
    """The part of a pool's spec that a generator's template also has."""

    mode: Literal["Active", "DryRun"] = "Active"
    """Active, or DryRun: compute and show, write no membership."""
    requires: Requirements = Requirements()
    """What a node must have to be a member."""
    exclude_nodes: Annotated[tuple[NodeName, ...], Field(max_length=100, json_schema_extra=_SET)] = ()
    """Nodes that are never members."""
    min_members: Annotated[int, Field(ge=0, le=1_000_000)] = 1
    """The pool is Ready when it has at least this many Ready members."""
    slice_size: Annotated[
        int,
        Field(
            ge=1, le=SLICE_MAX, json_schema_extra=_rule("self == oldSelf", "sliceSize is immutable: make a new pool")
        ),
    ] = SLICE_MAX
    """Members in one NodePoolSlice at most. Immutable."""
    brake: Brake = Brake()
    """How many members silence may remove at once."""


class Generated(ApiModel):
    """Where a generated pool comes from. Written by the operator."""

    by: Annotated[str, StringConstraints(min_length=1, max_length=40)]
    """Name of the NodePoolGenerator."""
    kind: GeneratedKind
    """Which rule made it."""
    key: Text
    """The key, for example zh-en; names are derived from it, never the other way round."""


class PoolSpec(PoolTemplateSpec):
    """The rule of the pool."""

    generated: Generated | None = None
    """Set on pools that a generator made."""


class ExcludedCount(ApiModel):
    """How many nodes are not members, for one reason."""

    reason: Text
    """The gate that decided, for example TypeNotReady."""
    count: Count
    """Number of nodes."""


class PoolStatus(ApiModel):
    """What the operator observes of the pool. Members are in NodePoolSlices."""

    observed_generation: Annotated[int | None, Field(ge=0)] = None
    """The metadata.generation that this status was computed from."""
    members: Count | None = None
    """Members in all three states."""
    ready_members: Count | None = None
    """Members that may be offered work."""
    suspect_members: Count | None = None
    """Members whose heartbeat is late; offered last."""
    draining_members: Count | None = None
    """Members that are being drained; never offered."""
    slices: Count | None = None
    """Number of NodePoolSlices."""
    excluded: Annotated[tuple[ExcludedCount, ...], Field(max_length=64)] = ()
    """Nodes that are not members, counted by reason."""
    last_change: Timestamp | None = None
    """When membership last changed."""
    conditions: Annotated[tuple[Condition, ...], Field(max_length=16, json_schema_extra=map_by("type"))] = ()
    """Ready, MassSilence, UnknownRequirement and others that hold."""
    ready: Tristate | None = None
    """The status of condition Ready, for field selectors and columns."""


class NodePool(ApiModel):
    """A set of nodes by rule: every node that meets the requirements right now is a member."""

    spec: PoolSpec = PoolSpec()
    """The rule of the pool."""
    status: PoolStatus | None = None
    """What the operator observes of the pool."""
