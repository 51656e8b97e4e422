"""JSON of v1 Nodes, reduced to the fields in use: a whole Node is tens of kilobytes, most of it status.

Pure. The result keeps the wire shape, so that `kube.decode` reads it like any other object. Taints, conditions and
addresses are left as they are, also malformed ones.
"""

from typing import Any

import msgspec

from hotpool.kube.rest import WireMetadata, WireObject


class _Metadata(WireMetadata):
    labels: dict[str, str] | None = None


class _Spec(msgspec.Struct):
    unschedulable: bool = False
    taints: Any = None


class _Status(msgspec.Struct):
    conditions: Any = None
    addresses: Any = None


class NodeJson(WireObject):
    """A v1 Node."""

    metadata: _Metadata = msgspec.field(default_factory=_Metadata)
    spec: _Spec | None = None
    status: _Status | None = None

    def wire_shape(self) -> dict[str, Any]:
        """Return the Node as dictionaries."""
        return dict(msgspec.to_builtins(self))
