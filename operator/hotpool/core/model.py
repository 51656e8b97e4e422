"""Immutable values of the core: objects as last observed, independent of the JSON that `kube.decode` converts."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, NamedTuple

from msgspec import Struct

from hotpool.api.capability import DrainStatus
from hotpool.api.generator import GeneratorSpec, GeneratorStatus
from hotpool.api.pool import PoolSpec, PoolStatus
from hotpool.api.slice import MemberState
from hotpool.core.address_problems import AddressProblem
from hotpool.core.declared_words import ServiceWords
from hotpool.core.hardware import Hardware
from hotpool.core.kube_node_health import HEALTHY, SHUTDOWN_MESSAGE, KubeNodeHealth, KubeNodeProblem, describe_problem
from hotpool.core.language_pairs import NO_PAIRS, Pairs
from hotpool.core.service_troubles import RefusedCommand, ServiceTrouble
from hotpool.core.slice_name import stem_and_index


class Kind(StrEnum):
    """The kinds that the operator watches; the values are the plurals of the API."""

    KUBE_NODE = "nodes"
    """v1 Node, not a kind of hotpool; watched only if the settings say so."""

    NODE = "nodecapabilities"
    POOL = "nodepools"
    SLICE = "nodepoolslices"
    GENERATOR = "nodepoolgenerators"


CUSTOM_KINDS: Final = (Kind.NODE, Kind.POOL, Kind.SLICE, Kind.GENERATOR)
"""The kinds that hotpool defines."""


class Key(NamedTuple):
    """Kind and name of an object to reconcile."""

    kind: Kind
    name: str


class Identity(NamedTuple):
    """Uid and version of an object (requirement C7)."""

    uid: str
    version: int
    """metadata.resourceVersion; comparable within one kind (KEP-5504)."""


@dataclass(frozen=True, slots=True)
class Meta:
    """Metadata of one object."""

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
    """Liveness of a node by its heartbeats (requirements C1, C3)."""

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


class NodeAddress(NamedTuple):
    """Address of a node as its agent claims it (requirement B13)."""

    ip: str
    source: str
    """Catalogue, Node, Pod or Route."""


class PodReference(NamedTuple):
    """Pod that a service runs in, as the node's agent claims it."""

    namespace: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class ServiceEndpoint:
    """Where a remote client connects to a service, as the node's agent claims it (requirement B13)."""

    port: int
    addresses: tuple[str, ...] = ()
    """The service's own addresses; empty: those of the node."""
    app_protocol: str | None = None


@dataclass(frozen=True, slots=True)
class ServiceOffer:
    """Ready service: it is Running, and its type is ready through it."""

    service: str
    type: str
    languages: frozenset[str] = frozenset()
    rules: tuple[Rule, ...] = ()
    attributes: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Declared values by key; languages, model, version and device are keys too."""
    endpoint: ServiceEndpoint | None = None
    endpoint_reason: str | None = None
    """Reason why there is no endpoint; None also for the report of an agent that knows no endpoints."""
    pod: PodReference | None = None
    max_concurrent: int | None = None
    """Limit of reservations; None: no limit (requirement E9)."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Address and port of one ready service for clients, reduced to what the operator allows (requirement B13)."""

    service: str
    type: str
    port: int
    addresses: tuple[str, ...]
    """Addresses for picks, in order of preference; never empty."""
    vouched: tuple[str, ...] = ()
    """Those that may also enter EndpointSlices, because more than the node's agent stands for them."""
    app_protocol: str | None = None


@dataclass(frozen=True, slots=True)
class TypeState:
    """Readiness of a type, the reason if not ready, and its ready services (requirement B2)."""

    ready: bool
    reason: str | None = None
    services: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """Report of an agent, reduced to the fields that membership depends on."""

    instance: str
    session: str
    epoch: int
    sequence: int
    time: str
    interval: float
    """H in seconds."""
    leaving: bool = False
    draining: bool = False
    addresses: tuple[NodeAddress, ...] = ()
    types: Mapping[str, TypeState] = field(default_factory=dict)
    offers: Mapping[str, tuple[ServiceOffer, ...]] = field(default_factory=dict)
    """Type → its ready services; only ready types."""
    numbers: Mapping[str, int] = field(default_factory=dict)
    """Service → requests in progress, by its own number (requirement B5)."""
    uncounted: bool = False
    """True if a service that may have requests in progress has no number."""
    troubles: tuple[ServiceTrouble, ...] = ()
    declared: frozenset[ServiceWords] = frozenset()
    hardware: Hardware | None = None

    @property
    def holder(self) -> str:
        """Value of holderIdentity in the Lease that belongs to this report."""
        return f"{self.instance}/{self.epoch}"


@dataclass(frozen=True, slots=True)
class StoredCondition:
    """Condition of a node as stored by the operator."""

    status: str
    reason: str
    message: str
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
    addresses: tuple[str, ...] = ()
    """Addresses that people wrote into its spec, in place of those of the report (requirement B13)."""
    limits: Mapping[str, int] = field(default_factory=dict)
    """Type → limit of reservations of all its services together, which people wrote (requirement E9)."""
    report: Report | None = None
    problem: str | None = None
    """Reason why a stored report is invalid."""
    conditions: Mapping[str, StoredCondition] = field(default_factory=dict)
    """Stored conditions of the operator, by type."""
    drain_status: DrainStatus | None = None
    """Stored progress of its drain; None also for an invalid one."""
    user_fields_empty: bool = False
    """True while no user has written a spec, a label or an annotation into it (requirement C4)."""
    owner: str | None = None
    """uid of the v1 Node that owns it; the garbage collector deletes it with that Node."""
    ignored_commands: str = ""
    """Commands in its spec that have no effect, as text; empty: none."""
    refused: tuple[RefusedCommand, ...] = ()


@dataclass(frozen=True, slots=True)
class KubeNode:
    """One v1 Node, reduced to the fields that membership depends on."""

    meta: Meta
    labels: Mapping[str, str] = field(default_factory=dict)
    unschedulable: bool = False
    """True while it is cordoned."""
    health: KubeNodeHealth = HEALTHY
    addresses: tuple[str, ...] = ()
    """Its addresses of the types InternalIP and ExternalIP."""


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Content of one node's Lease."""

    node: str
    holder: str
    renewed: str
    """renewTime as written; only compared, never parsed as a time (requirement C2)."""
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
    pause_problem: str = ""
    """Reason why its annotation `paused` has no effect; empty: it has, or there is none."""
    owner: str | None = None
    """uid of the generator that owns it."""
    created: str = ""
    """Time of its creation, RFC 3339 in UTC."""
    problem: str | None = None
    """Reason why the spec is invalid."""


class Member(Struct, frozen=True, gc=False):
    """One node of a pool, as a slice lists it.

    Without garbage collection: a fleet has a million members, and collections that look at them block the event loop.
    """

    node: str
    state: MemberState
    since: str
    """Time when the node joined the pool, RFC 3339."""


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
        """The pool of its spec, and the pool to which its name belongs; they differ after an edit by hand."""
        stem, index = stem_and_index(self.meta.name)
        return (self.pool,) if index is None or stem == self.pool else (self.pool, stem)


@dataclass(frozen=True, slots=True)
class Generator:
    """One NodePoolGenerator."""

    meta: Meta
    spec: GeneratorSpec
    status: GeneratorStatus = field(default_factory=GeneratorStatus)
    paused: bool = False
    pause_problem: str = ""
    """As of a pool."""
    problem: str | None = None
    """Reason why the spec is invalid."""


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
    """Input of `core.matching` for one node: its report, liveness, labels and language pairs."""

    node: Node
    liveness: Liveness
    seen: bool = True
    """False: silent since the start of this operator, and reported before it."""
    expired: bool = False
    """True: silent for 600 s, so that the brake no longer retains it (requirements C4, D8)."""
    pairs: Pairs = NO_PAIRS
    """Directed language pairs of the node; derived once for all pools."""
    semantic_pairs: Pairs = NO_PAIRS
    """Language pairs of which semantic repair supports both languages."""
    kube: KubeNode | None = None
    """The v1 Node of the same name; None: there is none, or v1 Nodes are not watched."""
    joined_labels: Mapping[str, str] | None = None
    """Labels of the NodeCapability and of the v1 Node; None: those of the NodeCapability alone."""
    endpoints: Mapping[str, Endpoint] = field(default_factory=dict)
    """Endpoints of the node's ready services, by service id."""
    address_problems: tuple[AddressProblem, ...] = ()
    """Claimed addresses that are not used, in the order of services and addresses."""
    overdue: bool = False
    """True: silent for more than one interval, computed while the v1 Node's Ready is Unknown (requirement C8)."""
    shut_down: bool | None = None
    """True: shut down, by the kubelet's last report and the agent's silence since. None: not known."""

    @property
    def cordoned(self) -> bool:
        """True while the v1 Node of the same name is cordoned."""
        return self.kube is not None and self.kube.unschedulable

    @property
    def kube_unknown(self) -> bool:
        """True while the node controller has no news from the kubelet: the v1 Node's Ready is Unknown."""
        return self.kube is not None and self.kube.health.ready == "Unknown"

    @property
    def kube_problem(self) -> KubeNodeProblem | None:
        """Problem of the v1 Node that makes the node Suspect whatever its heartbeats (requirement C8)."""
        if self.kube is None or self.kube.health.ready in {"True", None}:
            return None
        if self.kube.health.ready == "False":
            return KubeNodeProblem.NOT_READY
        return KubeNodeProblem.UNREACHABLE if self.overdue else None

    @property
    def kube_problem_text(self) -> str:
        """Text for `kube_problem`; empty without one."""
        problem = self.kube_problem
        return describe_problem(problem, self.kube.health.detail) if self.kube and problem else ""

    @property
    def shutdown(self) -> str | None:
        """Sign that the v1 Node shuts down or is off, which takes the node out of all pools (requirement C8)."""
        if self.kube is None:
            return None
        return self.kube.health.shutdown or (SHUTDOWN_MESSAGE if self.kube_unknown and self.shut_down else None)

    @property
    def draining(self) -> bool:
        """True while people or the node's agent drain the node, or the v1 Node of the same name is cordoned."""
        return self.node.drain or self.drained_by_agent or self.cordoned

    @property
    def drained_by_agent(self) -> bool:
        """True while the agent reports that it drains the node."""
        return self.node.report is not None and self.node.report.draining

    @property
    def labels(self) -> Mapping[str, str]:
        """Labels that a pool's nodeSelector is matched against."""
        return self.node.labels if self.joined_labels is None else self.joined_labels
