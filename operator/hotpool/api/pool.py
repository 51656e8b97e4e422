"""NodePool: a set of nodes that meet the same requirements.

People or a generator write `spec`, the operator `status`. The size of `status` does not depend on the number of nodes.
"""

from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field, StringConstraints
from pydantic.config import JsonDict

from hotpool.api.meta import (
    MAX_CONDITIONS,
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
    cel_rule,
    map_by,
    match_rule,
)

SERVICE_NAME_PATTERN: Final = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"
_DNS_LABEL: Final = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
APP_PROTOCOL_PATTERN: Final = rf"^({_DNS_LABEL}(\.{_DNS_LABEL})*/)?[A-Za-z0-9]([-A-Za-z0-9_.]{{0,61}}[A-Za-z0-9])?$"
"""As the API server has it: with any other one, it would refuse the Service and every change of its endpoints."""
AppProtocol = Annotated[
    str,
    StringConstraints(pattern=APP_PROTOCOL_PATTERN, max_length=253),
    Field(
        json_schema_extra=match_rule(
            "must be an application protocol as in a Service port: for example http, grpc or kubernetes.io/ws"
        )
    ),
]
ServiceName = Annotated[
    str,
    StringConstraints(pattern=SERVICE_NAME_PATTERN, min_length=1, max_length=63),
    Field(
        json_schema_extra=match_rule(
            "must begin with a letter, and have lower case letters, digits and - only: for example zh-en"
        )
    ),
]
_SET: JsonDict = {"x-kubernetes-list-type": "set"}

HASH_MAX: Final = 1024
"""Maximum number of hash buckets."""
MAX_PAIRS: Final = 64
MAX_VALUES: Final = 64
MAX_TYPES: Final = 32
MAX_ATTRIBUTES: Final = 16
MAX_GPUS: Final = 64

GeneratedKind = Literal["LanguagePair", "ManyToOne", "LanguageSet", "AttributeValue", "Hash"]
"""Kinds of generated pools, by the rule of the generator."""

LabelKey = Annotated[str, StringConstraints(min_length=1, max_length=317)]
LabelValue = Annotated[str, StringConstraints(max_length=63)]
Value = Annotated[str, StringConstraints(min_length=1, max_length=253)]
Minimum = Annotated[int, Field(ge=1, le=2**31 - 1)]


GpuModel = Annotated[
    str,
    StringConstraints(min_length=1, max_length=63),
    Field(json_schema_extra=cel_rule("self.matches('[A-Za-z0-9]')", "must have a letter or a digit: for example L4")),
]


class AttributeRequirement(ApiModel):
    """A requirement on one declared attribute. If both `anyOf` and `allOf` are set, both must be met."""

    model_config: ClassVar = {
        "json_schema_extra": cel_rule(
            "has(self.anyOf) || has(self.allOf)", "anyOf or allOf is required: the values to match"
        )
    }

    key: Annotated[str, StringConstraints(min_length=1, max_length=63)]
    """Name of the attribute: a declared key, or one of languages, model, version, device."""
    any_of: Annotated[tuple[Value, ...] | None, Field(min_length=1, max_length=MAX_VALUES, json_schema_extra=_SET)] = (
        None
    )
    """Values of which at least one must be declared."""
    all_of: Annotated[tuple[Value, ...] | None, Field(min_length=1, max_length=MAX_VALUES, json_schema_extra=_SET)] = (
        None
    )
    """Values that must all be declared."""


class TypeRequirement(ApiModel):
    """A type of which at least one service must be ready and meet all attribute requirements."""

    type: Label63
    """The type: asr, nmt, tts, semantic, llm or any other word. A type that no node offers yet is valid."""
    attributes: Annotated[
        tuple[AttributeRequirement, ...], Field(max_length=MAX_ATTRIBUTES, json_schema_extra=map_by("key"))
    ] = ()
    """Requirements on attributes. A single service of the type must meet them all."""


class LanguageRequirement(ApiModel):
    """Directed language pairs that the node must offer."""

    all_of: Annotated[tuple[PairOrAny, ...], Field(min_length=1, max_length=MAX_PAIRS, json_schema_extra=_SET)]
    """Pairs `src-tgt`. `*-tgt` is met by at least one source language."""
    semantic: bool = False
    """True: both languages of a pair must also be languages of the node's semantic services."""


class HashRequirement(ApiModel):
    """A hash bucket: FNV-1a-64 over the node's name, a zero byte and the seed, modulo the count."""

    model_config: ClassVar = {
        "json_schema_extra": cel_rule("self.index < self.count", "index must be smaller than count")
    }

    count: Annotated[int, Field(ge=1, le=HASH_MAX)]
    """Number of hash buckets."""
    seed: Annotated[str, StringConstraints(max_length=63)] = ""
    """Another seed gives another distribution."""
    index: Annotated[int, Field(ge=0, le=HASH_MAX - 1)]
    """Index of the bucket, from 0."""


class LabelExpression(ApiModel):
    """A label requirement, as metav1.LabelSelectorRequirement."""

    model_config: ClassVar = {
        "json_schema_extra": cel_rule(
            "self.operator in ['Exists', 'DoesNotExist'] ? !has(self.values) || self.values.size() == 0"
            " : has(self.values) && self.values.size() > 0",
            "In and NotIn need values; Exists and DoesNotExist take none",
        )
    }

    key: LabelKey
    """Label key."""
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"]
    """Operator: In, NotIn, Exists or DoesNotExist."""
    values: Annotated[tuple[LabelValue, ...], Field(max_length=64)] = ()
    """Values for In and NotIn."""


class LabelSelector(ApiModel):
    """A selector of labels of the NodeCapability, as metav1.LabelSelector."""

    match_labels: Annotated[dict[LabelKey, LabelValue], Field(max_length=32, default_factory=dict)]
    """Labels that must have exactly these values."""
    match_expressions: Annotated[tuple[LabelExpression, ...], Field(max_length=32)] = ()
    """Label requirements that must all be met."""


class GpuRequirement(ApiModel):
    """GPUs that the node must have. Each one that counts meets both model and memory."""

    models: Annotated[tuple[GpuModel, ...], Field(max_length=MAX_VALUES, json_schema_extra=_SET)] = ()
    """Models of which a GPU must be one, for example L4. Words of the reported name suffice: NVIDIA. Empty: any."""
    memory_mib: Annotated[Minimum | None, Field(alias="memoryMiB")] = None
    """Minimum memory of each GPU in MiB."""
    count: Annotated[int, Field(ge=1, le=MAX_GPUS)] = 1
    """Minimum number of such GPUs."""


class HardwareRequirement(ApiModel):
    """Minimums of the node's hardware, as its agent reports it. A value that is not reported meets none."""

    model_config: ClassVar = {
        "json_schema_extra": cel_rule(
            "has(self.cpus) || has(self.memoryMiB) || has(self.gpu)",
            "cpus, memoryMiB or gpu is required, for example gpu: {models: [L4], memoryMiB: 20000}",
        )
    }

    cpus: Minimum | None = None
    """Minimum number of logical processors."""
    memory_mib: Annotated[Minimum | None, Field(alias="memoryMiB")] = None
    """Minimum main memory in MiB."""
    gpu: GpuRequirement | None = None
    """GPUs that the node must have. `{}`: one of any model."""

    @property
    def states_nothing(self) -> bool:
        """True without any minimum."""
        return self.cpus is None and self.memory_mib is None and self.gpu is None


class Requirements(ApiModel):
    """Requirements that a node must meet to be a member. All that are set must be met."""

    types: Annotated[tuple[TypeRequirement, ...], Field(max_length=MAX_TYPES, json_schema_extra=map_by("type"))] = ()
    """Types that must be ready."""
    language_pairs: LanguageRequirement | None = None
    """Language pairs that the node must offer."""
    hash: HashRequirement | None = None
    """Hash bucket that the node must be in, by its name."""
    node_selector: LabelSelector | None = None
    """Labels that the NodeCapability must have."""
    hardware: HardwareRequirement | None = None
    """Minimums of the node's hardware."""
    endpoint: Literal["Required", "Optional"] = "Optional"
    """Required: the node must have an endpoint for each required type. Optional: it need not."""
    match_all: bool = False
    """True: empty requirements match every reporting node. False: they match none."""


class Brake(ApiModel):
    """Limit of silent nodes above which the pool retains its members."""

    max_silent_percent: Annotated[int, Field(ge=0, le=100)] = 30
    """Maximum percentage of silent members. Above it, none is removed."""


class PoolServicePort(ApiModel):
    """One port of the pool's Service, for one required type. The port's name is the type."""

    type: Label63
    """One of the types in requires.types."""
    port: Annotated[int, Field(ge=1, le=65535)]
    """Port of the Service. Members may have other ports."""
    app_protocol: AppProtocol | None = None
    """Application protocol as in a Service port, for example http, grpc or kubernetes.io/ws."""


class PoolService(ApiModel):
    """A Service without selector whose EndpointSlices are the pool's members."""

    model_config: ClassVar = {
        "json_schema_extra": cel_rule(
            "self.ports.all(p, self.ports.exists_one(q, q.port == p.port))", "two ports have the same number"
        )
    }

    name: ServiceName | None = None
    """Name of the Service. Default: the name of the pool. It must begin with a letter."""
    cluster_ip: Annotated[Literal["Auto", "None"], Field(alias="clusterIP")] = "Auto"
    """Auto: the Service has a cluster IP. None: it is headless, and DNS answers with the members' addresses."""
    ports: Annotated[
        tuple[PoolServicePort, ...], Field(min_length=1, max_length=MAX_TYPES, json_schema_extra=map_by("type"))
    ]
    """Ports of the Service, at most one for each type."""


class PoolTemplateSpec(ApiModel):
    """Fields of a pool's spec that a generator's template has, too."""

    model_config: ClassVar = {
        "json_schema_extra": cel_rule(
            "!has(self.service) || self.service.ports.all(p, has(self.requires) && has(self.requires.types)"
            " && self.requires.types.exists(t, t.type == p.type))",
            "each type in service.ports must be one of requires.types",
        )
    }

    mode: Literal["Active", "DryRun"] = "Active"
    """Active, or DryRun: compute and show the membership without writing it."""
    requires: Requirements = Requirements()
    """Requirements that a node must meet to be a member."""
    exclude_nodes: Annotated[tuple[NodeName, ...], Field(max_length=100, json_schema_extra=_SET)] = ()
    """Nodes that are never members."""
    min_members: Annotated[int, Field(ge=0, le=1_000_000)] = 1
    """Minimum number of Ready members for the pool to be Ready."""
    slice_size: Annotated[
        int,
        Field(
            ge=1, le=SLICE_MAX, json_schema_extra=cel_rule("self == oldSelf", "sliceSize is immutable: make a new pool")
        ),
    ] = SLICE_MAX
    """Maximum number of members in one NodePoolSlice. Immutable."""
    brake: Brake = Brake()
    """Limit of silent nodes above which the pool retains its members."""
    service: PoolService | None = None
    """Publishes the pool as a Service. Absent: no Service."""


class Generated(ApiModel):
    """Origin of a generated pool. Written by the operator."""

    by: Annotated[str, StringConstraints(min_length=1, max_length=40)]
    """Name of the NodePoolGenerator."""
    kind: GeneratedKind
    """Kind of the rule that generated the pool."""
    key: Text
    """Key of the pool, for example zh-en. The pool's name is derived from the key, never the key from the name."""


class PoolSpec(PoolTemplateSpec):
    """Desired state of the pool: its requirements and options."""

    generated: Generated | None = None
    """Origin of the pool. Set only on generated pools."""


class ExcludedCount(ApiModel):
    """Number of nodes that are not members for one reason."""

    reason: Text
    """The first criterion that is not met, for example TypeNotReady."""
    count: Count
    """Number of nodes."""


class PoolStatus(ApiModel):
    """Observed state of the pool, written by the operator. The members are in NodePoolSlices."""

    observed_generation: Annotated[int | None, Field(ge=0)] = None
    """The metadata.generation that this status is based on."""
    members: Count | None = None
    """Number of members in all three states."""
    ready_members: Count | None = None
    """Number of Ready members, which are offered work."""
    suspect_members: Count | None = None
    """Number of Suspect members: their heartbeat is late or their v1 Node is not ready. They are offered last."""
    draining_members: Count | None = None
    """Number of Draining members. They are never offered."""
    slices: Count | None = None
    """Number of NodePoolSlices."""
    excluded: Annotated[tuple[ExcludedCount, ...], Field(max_length=64)] = ()
    """Numbers of nodes that are not members, by reason."""
    last_change: Timestamp | None = None
    """Time of the last change of membership."""
    conditions: Annotated[
        tuple[Condition, ...], Field(max_length=MAX_CONDITIONS, json_schema_extra=map_by("type"))
    ] = ()
    """Conditions Ready, MassSilence, UnknownRequirement, ServiceNotAllowed and others that apply."""
    ready: Tristate | None = None
    """Status of condition Ready, for field selectors and columns."""


class NodePool(ApiModel):
    """A set of nodes by rule: every node that meets the requirements at the moment is a member."""

    model_config: ClassVar = {
        "json_schema_extra": cel_rule(
            "!has(self.spec) || !has(self.spec.service) || has(self.spec.service.name)"
            " || self.metadata.name.matches('^[a-z]')",
            "spec.service.name is required: the name of a Service begins with a letter, and the pool's does not",
        )
    }

    spec: PoolSpec = PoolSpec()
    """Desired state of the pool: its requirements and options."""
    status: PoolStatus | None = None
    """Observed state of the pool, written by the operator."""
