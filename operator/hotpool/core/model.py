"""The values that the decision works on: nodes, pools, slices and generators as last observed.

Made by `kube.decode`, held by `core.cluster_cache`, read by everything in `core`. All frozen; no wire shapes here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

from hotpool.api.generator import GeneratorSpec, GeneratorStatus
from hotpool.api.pool import PoolSpec, PoolStatus
from hotpool.api.slice import MemberState
from hotpool.core.pairs import NO_PAIRS, Pairs

_MAX_INDEX_DIGITS: Final = 9


class Kind(StrEnum):
    """The kinds that the operator watches; the values are the plurals of the API."""

    KUBE_NODE = "nodes"
    """v1 Node: not ours, and watched only where the operator is told to follow it."""

    NODE = "nodecapabilities"
    POOL = "nodepools"
    SLICE = "nodepoolslices"
    GENERATOR = "nodepoolgenerators"


CUSTOM_KINDS: Final = (Kind.NODE, Kind.POOL, Kind.SLICE, Kind.GENERATOR)
"""The kinds that hotpool defines."""


class Key(NamedTuple):
    """One thing to reconcile."""

    kind: Kind
    name: str


class Identity(NamedTuple):
    """Which object, and which version of it (requirement C7)."""

    uid: str
    version: int
    """metadata.resourceVersion; comparable within one kind (KEP-5504)."""


@dataclass(frozen=True, slots=True)
class Meta:
    """Identity and version of one object."""

    name: str
    uid: str
    version: int
    """metadata.resourceVersion."""
    generation: int = 0

    @property
    def identity(self) -> Identity:
        """Uid and version."""
        return Identity(self.uid, self.version)


class Liveness(StrEnum):
    """Whether a node's heartbeat is heard (requirements C1, C3)."""

    LIVE = "Live"
    SUSPECT = "Suspect"
    OFFLINE = "Offline"


@dataclass(frozen=True, slots=True)
class Rule:
    """One translation rule, normalised (requirement B4)."""

    kind: str
    languages: frozenset[str] = frozenset()
    pairs: frozenset[str] = frozenset()
    blocked: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class ServiceOffer:
    """A service that counts: it is Running and its type is ready through it."""

    service: str
    type: str
    languages: frozenset[str] = frozenset()
    rules: tuple[Rule, ...] = ()
    attributes: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Declared values by key; languages, model, version and device are keys too."""


@dataclass(frozen=True, slots=True)
class TypeState:
    """Whether a type is ready, why not, and through which services (requirement B2)."""

    ready: bool
    reason: str | None = None
    services: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """An agent's account of its node, as far as the operator decides on it."""

    instance: str
    session: str
    epoch: int
    sequence: int
    time: str
    interval: float
    """H in seconds."""
    leaving: bool = False
    types: Mapping[str, TypeState] = field(default_factory=dict)
    offers: Mapping[str, tuple[ServiceOffer, ...]] = field(default_factory=dict)
    """By type; only types that are ready."""

    @property
    def holder(self) -> str:
        """The holderIdentity of the Lease that belongs to this report."""
        return f"{self.instance}/{self.epoch}"


@dataclass(frozen=True, slots=True)
class StoredCondition:
    """The Ready condition that an operator wrote on an object before."""

    status: str
    reason: str
    since: str
    """lastTransitionTime."""
    generation: int = 0
    """observedGeneration."""


@dataclass(frozen=True, slots=True)
class Node:
    """One NodeCapability."""

    meta: Meta
    labels: Mapping[str, str] = field(default_factory=dict)
    drain: bool = False
    report: Report | None = None
    problem: str | None = None
    """Why a report is there but cannot be used."""
    conditions: Mapping[str, StoredCondition] = field(default_factory=dict)
    """The operator's own conditions by type, as stored."""
    user_fields_empty: bool = False
    """True while people wrote nothing into it: no spec, no label or annotation of theirs (requirement C4)."""
    owner: str | None = None
    """uid of the v1 Node that takes it along when it is deleted."""


@dataclass(frozen=True, slots=True)
class KubeNode:
    """One v1 Node, as far as it matters to the node of its name."""

    meta: Meta
    labels: Mapping[str, str] = field(default_factory=dict)
    unschedulable: bool = False
    """True while it is cordoned."""


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """What one Lease says."""

    node: str
    holder: str
    renewed: str
    """renewTime as written: compared, never read as a time (requirement C2)."""
    interval: float | None = None
    """H in seconds: a third of leaseDurationSeconds."""
    uid: str = ""
    version: str = ""
    """metadata.resourceVersion."""


@dataclass(frozen=True, slots=True)
class Pool:
    """One NodePool."""

    meta: Meta
    spec: PoolSpec
    status: PoolStatus = field(default_factory=PoolStatus)
    paused: bool = False
    owner: str | None = None
    """uid of the generator that owns it."""
    problem: str | None = None
    """Why the spec cannot be used."""


class Member(NamedTuple):
    """One node of a pool, as a slice lists it."""

    node: str
    state: MemberState
    since: str
    """RFC 3339: when the node came into the pool."""


@dataclass(frozen=True, slots=True)
class Slice:
    """One NodePoolSlice."""

    meta: Meta
    pool: str
    term: int
    members: tuple[Member, ...]
    owner: str | None = None
    """uid of the pool that owns it."""
    labelled: bool = True

    @property
    def pools(self) -> tuple[str, ...]:
        """The pool that it claims to be of, and the one that needs its name: two where people edited it."""
        stem, index = stem_and_index(self.meta.name)
        return (self.pool,) if index is None or stem == self.pool else (self.pool, stem)


def stem_and_index(name: str) -> tuple[str, int | None]:
    """`zh-en-0` → `zh-en`, 0; the index is None where no pool names a slice so."""
    stem, _, suffix = name.rpartition("-")
    canonical = stem and suffix.isdecimal() and len(suffix) <= _MAX_INDEX_DIGITS and str(int(suffix)) == suffix
    return stem, int(suffix) if canonical else None


@dataclass(frozen=True, slots=True)
class Generator:
    """One NodePoolGenerator."""

    meta: Meta
    spec: GeneratorSpec
    status: GeneratorStatus = field(default_factory=GeneratorStatus)
    paused: bool = False
    problem: str | None = None
    """Why the spec cannot be used."""


Observed = Node | KubeNode | Pool | Slice | Generator
KIND_OF_OBJECT: Final[Mapping[type[Observed], Kind]] = {
    Node: Kind.NODE,
    KubeNode: Kind.KUBE_NODE,
    Pool: Kind.POOL,
    Slice: Kind.SLICE,
    Generator: Kind.GENERATOR,
}


@dataclass(frozen=True, slots=True)
class NodeView:
    """A node as the judge sees it: what was reported, and how alive it is."""

    node: Node
    liveness: Liveness
    seen: bool = True
    """False: known from before this operator started, and silent since."""
    expired: bool = False
    """True: silent for 600 s, so that no brake holds it any more (requirements C4, D8)."""
    pairs: Pairs = NO_PAIRS
    """Directed pairs that the node offers; derived once for all pools."""
    semantic_pairs: Pairs = NO_PAIRS
    """Those of them with both languages in semantic repair."""
    kube: KubeNode | None = None
    """The v1 Node of its name; None: there is none, or they are not followed."""
    joined_labels: Mapping[str, str] | None = None
    """Its own labels and those of the v1 Node; None: its own alone."""

    @property
    def cordoned(self) -> bool:
        """True while the v1 Node of its name is cordoned."""
        return self.kube is not None and self.kube.unschedulable

    @property
    def draining(self) -> bool:
        """True while people drain the node, or cordon the v1 Node of its name."""
        return self.node.drain or self.cordoned

    @property
    def labels(self) -> Mapping[str, str]:
        """What pools select by."""
        return self.node.labels if self.joined_labels is None else self.joined_labels
