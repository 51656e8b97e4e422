"""NodePoolSlice: at most 100 members of a pool, for people, API clients and the restart of the operator.

Only the operator writes it, and its pool owns it. Like EndpointSlice it has neither spec nor status.
"""

from typing import Annotated, Literal

from pydantic import Field

from hotpool.api.meta import SLICE_MAX, ApiModel, MemberName, SafeCount, Timestamp

MemberState = Literal["Ready", "Suspect", "Draining"]


class Member(ApiModel):
    """One node of the pool."""

    node: MemberName
    """Name of the NodeCapability."""
    state: MemberState
    """Ready: offered. Suspect: offered last. Draining: never offered."""
    since: Timestamp
    """Time at which the node became a member."""


class NodePoolSlice(ApiModel):
    """At most 100 members of one pool. Its name is `<pool>-<n>`, its label hotpool.dev/pool."""

    term: Annotated[
        SafeCount,
        Field(
            json_schema_extra={
                "x-kubernetes-validations": [
                    {"rule": "self >= oldSelf", "message": "a later leader has written this slice: term cannot go back"}
                ]
            }
        ),
    ]
    """Term of the leader that wrote the slice. It never decreases."""
    members: Annotated[tuple[Member, ...], Field(max_length=SLICE_MAX)] = ()
    """The members, each once. The list is atomic, so that the API server keeps no field ownership of each member."""
