"""Names, bounds and base classes common to all kinds of the API.

Must not decide or do I/O.
"""

import ast
import inspect
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import pairwise
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, StringConstraints
from pydantic.alias_generators import to_camel
from pydantic.config import JsonDict

from hotpool.api.names import LABEL_PATTERN, NODE_NAME_MAX, SUBDOMAIN_PATTERN

GROUP: Final = "hotpool.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
SCHEMA_REVISION: Final = 8
"""Revision of the CRDs, raised with each change of their schema. The operator refuses to start on an older one."""

SCHEMA_REVISION_ANNOTATION: Final = "hotpool.dev/schema-revision"
"""On a CRD: its revision. On the election Lease: the oldest one with which the leader starts."""
PAUSED_ANNOTATION: Final = "hotpool.dev/paused"
KUBE_NODES_ANNOTATION: Final = "hotpool.dev/kube-nodes"
"""On the election Lease: `true` while the leader watches v1 Nodes, so that the command line reads them, too."""
VERSION_ANNOTATION: Final = "hotpool.dev/version"
"""On the election Lease: version of the leader."""
LONGEST_RESERVATION_ANNOTATION: Final = "hotpool.dev/longest-reservation-seconds"
"""On the election Lease: longest reservation that a leader has seen, for the drains of the next one (C5)."""
POOL_LABEL: Final = "hotpool.dev/pool"
AGENT_PREFIX: Final = "agent.hotpool.dev/"
LEASE_LABEL: Final = f"{AGENT_PREFIX}lease"
LEASE_PREFIX: Final = "hotpool-node-"
NAME_TAKEN_SUFFIX: Final = "node-name-taken"
"""Suffix of the name of the Event about a node name that another agent owns: NODE.node-name-taken (B12)."""
ELECTION_LEASE: Final = "hotpool-operator"
"""The Lease that elects the leading operator."""
PROBE_LEASE: Final = "hotpool-operator-canary"
"""The probe Lease, by which the operator proves that its Lease watch is alive (requirement C3)."""
OPERATOR_MANAGER: Final = "hotpool-operator"

POOL_NAME_MAX: Final = 57
GENERATOR_NAME_MAX: Final = 40
SLICE_MAX: Final = 100
MAX_CONDITIONS: Final = 24
"""Maximum number of conditions of one object, including those of other writers."""

MAX_SAFE_INTEGER: Final = 2**53 - 1
"""Largest integer that is exact in JSON readers that use doubles."""

PAIR_PATTERN: Final = r"^[a-z][a-z0-9]{0,14}-[a-z][a-z0-9]{0,14}$"
PAIR_OR_ANY_PATTERN: Final = r"^([a-z][a-z0-9]{0,14}|\*)-[a-z][a-z0-9]{0,14}$"


def cel_rule(rule: str, message: str) -> JsonDict:
    """Return the part of a schema that has a CEL rule with a message."""
    return {"x-kubernetes-validations": [{"rule": rule, "message": message}]}


def match_rule(message: str) -> Callable[[JsonDict], None]:
    """Return a change of a schema: a CEL rule with this message instead of the pattern.

    For a pattern, the API server's message would be the regular expression.
    """

    def replace_pattern(schema: JsonDict) -> None:
        literal = str(schema.pop("pattern")).replace("\\", "\\\\")
        schema.update(cel_rule(f"self.matches('{literal}')", message))

    return replace_pattern


Label63 = Annotated[
    str,
    StringConstraints(pattern=LABEL_PATTERN, min_length=1, max_length=63),
    Field(
        json_schema_extra=match_rule(
            "must have lower case letters, digits and - only, and - neither first nor last: for example faster-whisper"
        )
    ),
]
"""A service id or a type: lower case letters, digits and `-`."""
MemberName = Annotated[str, StringConstraints(pattern=SUBDOMAIN_PATTERN, min_length=1, max_length=NODE_NAME_MAX)]
"""Name of a node in a list that only the operator writes, where a pattern costs the API server less than a rule."""
NodeName = Annotated[
    MemberName,
    Field(
        json_schema_extra=match_rule(
            "must be the name of a NodeCapability, of lower case letters, digits, - and dots: for example edge-017"
        )
    ),
]
PairOrAny = Annotated[
    str,
    StringConstraints(pattern=PAIR_OR_ANY_PATTERN, max_length=31),
    Field(
        json_schema_extra=match_rule(
            "must be source and target language in lower case: for example zh-en, or *-en for any source"
        )
    ),
]
Text = Annotated[str, StringConstraints(max_length=253)]
LongText = Annotated[str, StringConstraints(max_length=1024)]
Timestamp = Annotated[str, StringConstraints(max_length=40)]
"""RFC 3339 in UTC. Agents and operator write microseconds."""
Count = Annotated[int, Field(ge=0, le=2**31 - 1)]
MaxConcurrent = Annotated[int, Field(ge=1, le=1_000_000)]
"""Limit of requests or streams at a time (requirement E9)."""
SafeCount = Annotated[int, Field(ge=0, le=MAX_SAFE_INTEGER)]
Tristate = Literal["True", "False", "Unknown"]


class ApiModel(BaseModel):
    """Base of all models: camelCase in JSON, unknown fields ignored (requirement B11), immutable."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", frozen=True)

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Add the docstring below each field as its description.

        pydantic's own `use_attribute_docstrings` reads the sources in every process, which takes 0.06 s.
        """
        schema = handler(core_schema)
        properties = handler.resolve_ref_schema(schema)["properties"]
        for name, text in _docstrings(cls):
            properties[cls.model_fields[name].alias or name]["description"] = text
        return schema


def _docstrings(model: type[ApiModel]) -> Iterator[tuple[str, str]]:
    """Yield name and docstring of each field, those of base classes first."""
    for owner in reversed(model.__mro__[: model.__mro__.index(ApiModel)]):
        (declared,) = ast.parse(inspect.getsource(owner)).body
        for field, below in pairwise(getattr(declared, "body", [])):
            match field, below:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    yield name, inspect.cleandoc(text)


class Condition(ApiModel):
    """One aspect of the current state, as metav1.Condition."""

    type: Text
    """Type of the condition, for example Ready."""
    status: Tristate
    """True, False or Unknown."""
    observed_generation: SafeCount = 0
    """The metadata.generation that the condition is based on."""
    last_transition_time: Annotated[str, Field(json_schema_extra={"format": "date-time"}, max_length=40)]
    """Time of the last change of the status."""
    reason: Text
    """Machine-readable reason in CamelCase."""
    message: Annotated[str, StringConstraints(max_length=4096)] = ""
    """Human-readable message."""


def map_by(key: str) -> JsonDict:
    """Return the schema of a list that server-side apply merges by one key."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]}


def timestamp(moment: datetime | None = None) -> str:
    """Format a time (default: now) as RFC 3339 in UTC with microseconds, as all times in the API."""
    return (moment or datetime.now(UTC)).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
