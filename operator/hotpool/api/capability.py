"""NodeCapability: the present capability of a node.

People write `spec`, the node's agent `status.report`, the operator the rest of `status`. The report has only types and
size bounds: enums would reject the reports of a newer agent.
"""

from typing import Annotated, ClassVar, Final, Literal

from pydantic import FailFast, Field, JsonValue, StringConstraints
from pydantic.config import JsonDict

from hotpool.api.meta import (
    MAX_CONDITIONS,
    ApiModel,
    Condition,
    Count,
    Label63,
    LongText,
    MaxConcurrent,
    SafeCount,
    Text,
    Timestamp,
    Tristate,
    map_by,
)
from hotpool.api.names import MAX_INTERVAL_SECONDS

MAX_SERVICES: Final = 1000
MAX_TYPES: Final = 256
MAX_LANGUAGES: Final = 512
MAX_RULES: Final = 32
MAX_BLOCKED: Final = 2048
MAX_ATTRIBUTES: Final = 32
MAX_VALUES: Final = 256
MAX_ADDRESSES: Final = 4
REPORT_BYTES: Final = 64 * 1024
REPORT_SCHEMA_VERSION: Final = 1

STALE_REPORT_RULES: Final[list[JsonValue]] = [
    {
        "rule": "!has(oldSelf.report) || has(self.report)",
        "message": "stale report: a report cannot be removed, only replaced by a newer one",
    },
    {
        "rule": (
            "!has(oldSelf.report) || !has(self.report) || self.report.epoch > oldSelf.report.epoch"
            " || (self.report.epoch == oldSelf.report.epoch && self.report.session == oldSelf.report.session"
            " && self.report.sequence >= oldSelf.report.sequence)"
        ),
        "message": "stale report: a report with a later epoch or sequence, or of another session, is stored",
    },
]

ServiceState = Literal["Stopped", "Starting", "Running", "Stopping", "Failed"]
"""States of a service (requirement A3). Only Running counts."""
NotReadyReason = Literal["DeviceNotAccepted", "Failed", "Flapping", "Starting", "Stopped", "NotInstalled"]
"""Reasons why a type is not ready, in order of precedence (requirement B2)."""
RuleKind = Literal["any_to_any", "any_to_en", "en_to_any", "specific_pairs"]
"""Kinds of translation rules (requirement B4)."""

Short = Annotated[str, StringConstraints(max_length=63)]
Ip = Annotated[str, StringConstraints(max_length=45)]
"""An IPv4 or IPv6 address as text."""
IP_RULE: Final[JsonDict] = {
    "x-kubernetes-validations": [
        {"rule": "isIP(self)", "message": "must be an IP address without zone, port or prefix length"}
    ]
}
AddressSource = Literal["Catalogue", "Node", "Pod", "Route"]
"""Sources of the agent's addresses (requirement B13)."""
EndpointReason = Literal["LoopbackOnly", "Local", "NoPort", "NoAddress", "Unchecked"]
"""Reasons why a running service has no endpoint (requirement B13)."""


class ServiceIntent(ApiModel):
    """A command to one service of the node. It is new if (desired, requestID) differs from the last one carried out."""

    id: Label63
    """Id of the service in the node's catalogue."""
    desired: Literal["Running", "Stopped"]
    """Desired state of the service: Running or Stopped."""
    request_id: Annotated[str, Field(alias="requestID", max_length=63)] = ""
    """Arbitrary id of the command. Change it to repeat the command."""


class TypeLimit(ApiModel):
    """Limit of one type on the node."""

    type: Label63
    """Type of service."""
    max_concurrent: MaxConcurrent
    """Maximum number of reservations at a time of all services of the type together. The limit of each holds, too."""


class CapabilitySpec(ApiModel):
    """Desired state of the node, written by people."""

    drain: bool = False
    """True: the node stays in its pools as Draining and is offered no new work. Its services continue to run."""
    services: Annotated[
        tuple[ServiceIntent, ...],
        Field(max_length=MAX_SERVICES, json_schema_extra=map_by("id")),
    ] = ()
    """Commands to services, at most one for each service id."""
    addresses: Annotated[
        tuple[Annotated[Ip, Field(json_schema_extra=IP_RULE)], ...],
        Field(max_length=MAX_ADDRESSES, json_schema_extra={"x-kubernetes-list-type": "set"}),
    ] = ()
    """IP addresses of the node that replace those that its agent found. They are not checked by a connection."""
    limits: Annotated[tuple[TypeLimit, ...], Field(max_length=MAX_TYPES, json_schema_extra=map_by("type"))] = ()
    """Limits of reservations, at most one for each type. They only reduce the limits of the services."""


class Platform(ApiModel):
    """The machine's platform."""

    os: Short | None = None
    """Operating system, for example linux."""
    arch: Short | None = None
    """Processor architecture as in Go's GOARCH, for example amd64."""
    hostname: Text | None = None
    """Host name of the machine."""


class Gpu(ApiModel):
    """One GPU."""

    model: Text | None = None
    """Model name."""
    memory_mib: Annotated[Count | None, Field(alias="memoryMiB")] = None
    """Memory in MiB."""


class Hardware(ApiModel):
    """The machine's hardware."""

    cpus: Count | None = None
    """Logical processors."""
    memory_mib: Annotated[Count | None, Field(alias="memoryMiB")] = None
    """Main memory in MiB."""
    gpus: Annotated[tuple[Gpu, ...], Field(max_length=64)] = ()
    """GPUs."""


class TranslationRule(ApiModel):
    """A rule that defines the directed language pairs of a translation service."""

    kind: Short
    """any_to_any, any_to_en, en_to_any or specific_pairs. A rule of an unknown kind allows no pair."""
    languages: Annotated[tuple[Short, ...], Field(max_length=MAX_LANGUAGES)] = ()
    """Languages that `any` includes. Not used by specific_pairs."""
    pairs: Annotated[tuple[Short, ...], Field(max_length=MAX_BLOCKED)] = ()
    """Pairs `src-tgt` of specific_pairs."""
    blocked: Annotated[tuple[Short, ...], Field(max_length=MAX_BLOCKED)] = ()
    """Pairs `src-tgt` that this rule does not allow. Other rules may allow them."""


class Attribute(ApiModel):
    """One declared attribute of a service."""

    key: Short
    """Name, for example tier or models."""
    values: Annotated[tuple[Text, ...], Field(max_length=MAX_VALUES)] = ()
    """Values of the attribute."""


class NodeAddress(ApiModel):
    """One address of the node, as its agent found it."""

    ip: Ip
    """IPv4 or IPv6 address."""
    source: Short
    """Catalogue, Node, Pod or Route."""


class ServiceEndpoint(ApiModel):
    """Where a remote client connects to the service."""

    addresses: Annotated[tuple[Ip, ...], Field(max_length=2)] = ()
    """Addresses that differ from those of the node, at most one of each IP family. Empty: the node's addresses."""
    port: Annotated[int, Field(ge=1, le=65535)]
    """TCP port."""
    app_protocol: Text | None = None
    """Application protocol as in a Service port, for example http, grpc or kubernetes.io/ws."""


class PodReference(ApiModel):
    """The pod that a service runs in."""

    namespace: Short
    """Namespace of the pod."""
    name: Text
    """Name of the pod."""
    uid: Short
    """metadata.uid of the pod."""


class Service(ApiModel):
    """One service of the node's catalogue and its state."""

    id: Short
    """Id of the service in the catalogue."""
    type: Short
    """Type of the service: asr, nmt, tts, semantic, llm or any other word."""
    device: Short | None = None
    """Device of the service: cpu or gpu."""
    state: Short
    """Stopped, Starting, Running, Stopping or Failed. Only a Running service counts."""
    since: Timestamp | None = None
    """Time at which the state began."""
    port: Count | None = None
    """TCP port of the service."""
    pid: Count | None = None
    """Process id of a supervised service."""
    version: Text | None = None
    """Declared version of the service."""
    model: Text | None = None
    """Declared model of the service."""
    restarts: Count = 0
    """Number of restarts after crashes since the service is in the catalogue."""
    last_error: LongText | None = None
    """The last failure, in one sentence."""
    desired: Short | None = None
    """Desired state in force: Running or Stopped."""
    desired_by: Short | None = None
    """Source of the desired state: local, cluster or catalogue."""
    request_id: Annotated[str | None, Field(alias="requestID", max_length=63)] = None
    """The requestID of the last command that was carried out."""
    languages: Annotated[tuple[Short, ...], Field(max_length=MAX_LANGUAGES)] = ()
    """Declared languages, normalised."""
    rules: Annotated[tuple[TranslationRule, ...], Field(max_length=MAX_RULES)] = ()
    """Declared translation rules."""
    attributes: Annotated[tuple[Attribute, ...], Field(max_length=MAX_ATTRIBUTES)] = ()
    """Other declared attributes."""
    endpoint: ServiceEndpoint | None = None
    """Where a remote client connects to the service. Null: the service has no endpoint."""
    endpoint_reason: Short | None = None
    """Reason why a running service has no endpoint: LoopbackOnly, Local, NoPort, NoAddress or Unchecked."""
    max_concurrent: MaxConcurrent | None = None
    """Maximum number of requests or streams at a time, which reservations observe. Null: no limit."""
    pod: PodReference | None = None
    """The pod that the service runs in. Null: the service is no pod."""
    in_flight: Count | None = None
    """Number of requests in progress, as the service itself says. Only while the service or the node drains."""


class TypeCapability(ApiModel):
    """Capability of the node for one type."""

    type: Short
    """Type of service."""
    ready: bool
    """True if a service of the type counts: it runs, on an accepted device, and is not flapping."""
    reason: Short | None = None
    """Reason why it is not ready: DeviceNotAccepted, Failed, Flapping, Starting, Stopped or NotInstalled."""
    services: Annotated[tuple[Short, ...], Field(max_length=MAX_SERVICES)] = ()
    """Ids of the ready services."""


class Report(ApiModel):
    """The agent's report of the node, always written as a whole."""

    schema_version: Count
    """Version of the report's schema."""
    agent_version: Short
    """Version of the agent."""
    instance: Short
    """Persistent random id of the agent's installation."""
    session: Short
    """Random id of the agent process."""
    epoch: SafeCount
    """Number that each new agent process increases by one with its first write."""
    sequence: SafeCount
    """Number that increases by one with each report of a process."""
    time: Timestamp
    """Time at which the agent saw the reported change, by the node's clock."""
    leaving: bool = False
    """True: the agent shuts down, and the node leaves all pools at once."""
    draining: bool = False
    """True: the machine's owner drains the node, or its agent before it stops. Listed as Draining."""
    interval_seconds: Annotated[int, Field(ge=1, le=MAX_INTERVAL_SECONDS)] = 15
    """H, the heartbeat interval in seconds."""
    summary: Short = ""
    """Number of running services and of all services, for example 3/4."""
    ready_types: Short = ""
    """The ready types, for people: for example asr,nmt. A last item +2 stands for two more."""
    platform: Platform | None = None
    """The machine's platform."""
    hardware: Hardware | None = None
    """The machine's hardware."""
    addresses: Annotated[tuple[NodeAddress, ...], Field(max_length=MAX_ADDRESSES)] = ()
    """Addresses at which remote clients reach the node."""
    services: Annotated[tuple[Service, ...], Field(max_length=MAX_SERVICES), FailFast()] = ()
    """All services of the node."""
    capabilities: Annotated[tuple[TypeCapability, ...], Field(max_length=MAX_TYPES)] = ()
    """Capabilities of the node, one for each type."""
    dropped: Count = 0
    """Number of invalid items that the agent left out."""
    truncated: Count = 0
    """Number of details left out to keep the report under 64 KiB. Capabilities are never left out."""


class ServiceInUse(ApiModel):
    """Work in progress of one service."""

    id: Short
    """Id of the service."""
    in_flight: Count
    """Number of requests in progress."""


class DrainStatus(ApiModel):
    """Progress of a drain, which ends when nothing is in use."""

    since: Timestamp
    """Time at which the operator saw the drain begin."""
    counted: Short
    """Kind of work that is counted: Reservations, Services (by their own numbers), Both or Nothing."""
    in_flight: Count | None = None
    """Reservations and requests in progress; the larger number if both are counted. Null: nothing is counted."""
    by_service: Annotated[tuple[ServiceInUse, ...], Field(max_length=MAX_SERVICES)] = ()
    """Numbers of the services that have one."""
    last_expiry: Timestamp | None = None
    """Time at which the last reservation of the node expires, unless it is renewed. Null: there is none."""


class CapabilityStatus(ApiModel):
    """Observed state of the node: `report` is written by its agent, the rest by the operator."""

    model_config: ClassVar = {"json_schema_extra": {"x-kubernetes-validations": STALE_REPORT_RULES}}

    report: Report | None = None
    """The agent's report, always written as a whole. An older report never replaces a newer one."""
    conditions: Annotated[
        tuple[Condition, ...],
        Field(max_length=MAX_CONDITIONS, json_schema_extra=map_by("type")),
    ] = ()
    """Conditions of the operator: Ready, Draining, Drained, AddressNotAllowed, AddressConflict and CommandIgnored."""
    drain: DrainStatus | None = None
    """Progress of the drain, written by the operator while the node drains."""
    ready: Tristate | None = None
    """Status of condition Ready, for field selectors and columns."""


class NodeCapability(ApiModel):
    """The present capability of one node: its services as its agent reports them, and its desired state."""

    spec: CapabilitySpec = CapabilitySpec()
    """Desired state of the node, written by people."""
    status: CapabilityStatus | None = None
    """Observed state of the node."""
