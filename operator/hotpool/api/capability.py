"""NodeCapability: what a node can do now.

`spec` is written by people, `status.report` by the node's agent, the rest of `status` by the operator. The report has
types and size bounds only, so that a newer agent is never refused for a word.
"""

from typing import Annotated, ClassVar, Final, Literal

from pydantic import FailFast, Field, JsonValue, StringConstraints

from hotpool.api.meta import (
    ApiModel,
    Condition,
    Count,
    Label63,
    LongText,
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
"""Why a type is not ready, in order of precedence (requirement B2)."""
RuleKind = Literal["any_to_any", "any_to_en", "en_to_any", "specific_pairs"]
"""How an NMT rule makes pairs (requirement B4)."""

Short = Annotated[str, StringConstraints(max_length=63)]


class ServiceIntent(ApiModel):
    """A command to one service of the node. It is new when (desired, requestID) differs from the one last acted on."""

    id: Label63
    """The id of the service in the node's catalogue."""
    desired: Literal["Running", "Stopped"]
    """What the service shall be."""
    request_id: Annotated[str, Field(alias="requestID", max_length=63)] = ""
    """Any word; change it to repeat a command."""


class CapabilitySpec(ApiModel):
    """What people want of the node."""

    drain: bool = False
    """True: the node stays in its pools as Draining and is offered no new work. Services go on."""
    services: Annotated[
        tuple[ServiceIntent, ...],
        Field(max_length=MAX_SERVICES, json_schema_extra=map_by("id")),
    ] = ()
    """Commands to services, one for each service id."""


class Platform(ApiModel):
    """The machine's platform."""

    os: Short | None = None
    """Operating system, for example linux."""
    arch: Short | None = None
    """Processor architecture in Go's words, for example amd64."""
    hostname: Text | None = None
    """The machine's own name for itself."""


class Gpu(ApiModel):
    """One graphics processor."""

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
    """Graphics processors."""


class TranslationRule(ApiModel):
    """Which directed pairs a translation service offers (requirement B4)."""

    kind: Short
    """any_to_any, any_to_en, en_to_any or specific_pairs; an unknown kind allows nothing."""
    languages: Annotated[tuple[Short, ...], Field(max_length=MAX_LANGUAGES)] = ()
    """Languages that `any` stands for; not used by specific_pairs."""
    pairs: Annotated[tuple[Short, ...], Field(max_length=MAX_BLOCKED)] = ()
    """The pairs `src-tgt` of specific_pairs."""
    blocked: Annotated[tuple[Short, ...], Field(max_length=MAX_BLOCKED)] = ()
    """Pairs `src-tgt` that this rule, and only this rule, does not allow."""


class Attribute(ApiModel):
    """One declared attribute of a service."""

    key: Short
    """Name, for example tier or models."""
    values: Annotated[tuple[Text, ...], Field(max_length=MAX_VALUES)] = ()
    """Its values."""


class Service(ApiModel):
    """One service of the node's catalogue and its state (requirement A3)."""

    id: Short
    """Id in the catalogue."""
    type: Short
    """An open word: asr, nmt, tts, semantic, llm, ..."""
    device: Short | None = None
    """cpu or gpu."""
    state: Short
    """Stopped, Starting, Running, Stopping or Failed. Only Running counts."""
    since: Timestamp | None = None
    """When the state began."""
    port: Count | None = None
    """TCP port on which the service answers."""
    pid: Count | None = None
    """Process id of a supervised service."""
    version: Text | None = None
    """Declared version of the service."""
    model: Text | None = None
    """Declared model of the service."""
    restarts: Count = 0
    """Restarts after crashes since the agent started."""
    last_error: LongText | None = None
    """The last failure in one sentence."""
    desired: Short | None = None
    """Running or Stopped: the wish that holds."""
    desired_by: Short | None = None
    """Who wished it: local, cluster or catalogue."""
    request_id: Annotated[str | None, Field(alias="requestID", max_length=63)] = None
    """The requestID of the command last acted on."""
    languages: Annotated[tuple[Short, ...], Field(max_length=MAX_LANGUAGES)] = ()
    """Declared languages, normalised."""
    rules: Annotated[tuple[TranslationRule, ...], Field(max_length=MAX_RULES)] = ()
    """Declared translation rules."""
    attributes: Annotated[tuple[Attribute, ...], Field(max_length=MAX_ATTRIBUTES)] = ()
    """Other declared attributes."""


class TypeCapability(ApiModel):
    """What the node can do for one type (requirement B2)."""

    type: Short
    """The type."""
    ready: bool
    """True when a service of the type runs on a device that counts."""
    reason: Short | None = None
    """Why not: DeviceNotAccepted, Failed, Flapping, Starting, Stopped or NotInstalled."""
    services: Annotated[tuple[Short, ...], Field(max_length=MAX_SERVICES)] = ()
    """Ids of the ready services."""


class Report(ApiModel):
    """The agent's account of the node (requirement B1), written whole."""

    schema_version: Count
    """Version of this shape."""
    agent_version: Short
    """Version of the agent."""
    instance: Short
    """Random id of the agent's installation, persisted."""
    session: Short
    """Random id of the agent's process."""
    epoch: SafeCount
    """Raised by one by each new agent process with its first write."""
    sequence: SafeCount
    """Raised by one with each report of a process."""
    time: Timestamp
    """When the reported change was seen, by the node's clock."""
    leaving: bool = False
    """True: the node takes itself out of all pools at once (requirement B10)."""
    interval_seconds: Annotated[int, Field(ge=1, le=MAX_INTERVAL_SECONDS)] = 15
    """H, the heartbeat interval in seconds."""
    summary: Short = ""
    """Running services of all services, for example 3/4."""
    platform: Platform | None = None
    """The machine's platform."""
    hardware: Hardware | None = None
    """The machine's hardware."""
    services: Annotated[tuple[Service, ...], Field(max_length=MAX_SERVICES), FailFast()] = ()
    """Every service of the catalogue."""
    capabilities: Annotated[tuple[TypeCapability, ...], Field(max_length=MAX_TYPES)] = ()
    """What the node can do, one entry for each type."""
    dropped: Count = 0
    """Invalid items that the agent left out."""
    truncated: Count = 0
    """Details left out to keep the report under 64 KiB; capabilities are never left out."""


class CapabilityStatus(ApiModel):
    """What is observed of the node: `report` by its agent, the rest by the operator."""

    model_config: ClassVar = {"json_schema_extra": {"x-kubernetes-validations": STALE_REPORT_RULES}}

    report: Report | None = None
    """The agent's account, written whole; an older one never replaces a newer one (requirement B7)."""
    conditions: Annotated[
        tuple[Condition, ...],
        Field(max_length=16, json_schema_extra=map_by("type")),
    ] = ()
    """Ready and Draining, by the operator."""
    ready: Tristate | None = None
    """The status of condition Ready, for field selectors and columns."""


class NodeCapability(ApiModel):
    """What one node can do right now: its services as its agent reports them, and what people want of it."""

    spec: CapabilitySpec = CapabilitySpec()
    """What people want of the node."""
    status: CapabilityStatus | None = None
    """What is observed of the node."""
