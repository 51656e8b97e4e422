"""NodePoolSlice: a part of a pool's members, at most 100, for people, API readers and the operator's restart.

Written by the operator only; owned by its pool. Like EndpointSlice it has no spec and status.
"""

from typing import Annotated, Literal

from pydantic import Field

from hotpool.api.meta import SLICE_MAX, ApiModel, NodeName, SafeCount, Timestamp

MemberState = Literal["Ready", "Suspect", "Draining"]


class Member(ApiModel):
    """One node of the pool."""

    node: NodeName
    """Name of the NodeCapability."""
    state: MemberState
    """Ready: offered. Suspect: offered last. Draining: never offered."""
    since: Timestamp
    """When the node came into the pool."""


class NodePoolSlice(ApiModel):
    """At most 100 members of one pool, named `<pool>-<n>` and labelled hotpool.dev/pool."""

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
    """The writer's term of leadership; never smaller than before."""
    members: Annotated[tuple[Member, ...], Field(max_length=SLICE_MAX)] = ()
    """The members, each once. Written whole, so that the API server keeps no field ownership for each."""
