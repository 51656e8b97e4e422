"""JSON of v1 Nodes, reduced to the fields in use: a whole Node is tens of kilobytes, most of it status.

Pure. The results keep the wire shape, so that `kube.decode` reads them like any other object. Taints and conditions
are left as they are, also malformed ones. Raises msgspec.DecodeError for JSON that is not a Node.
"""

from typing import Any, Final

import msgspec

Json = dict[str, Any]


class _Metadata(msgspec.Struct):
    name: str = ""
    uid: str = ""
    resourceVersion: str = ""  # noqa: N815 - the wire's name.
    labels: dict[str, str] | None = None


class _Spec(msgspec.Struct):
    unschedulable: bool = False
    taints: Any = None


class _Status(msgspec.Struct):
    conditions: Any = None


class _Node(msgspec.Struct):
    metadata: _Metadata
    spec: _Spec | None = None
    status: _Status | None = None


class _Line(msgspec.Struct):
    type: str
    object: _Node


_NODE: Final = msgspec.json.Decoder(_Node)
_LINE: Final = msgspec.json.Decoder(_Line)


def node(body: bytes | msgspec.Raw) -> Json:
    """Return one Node."""
    return _json(_NODE.decode(body))


def line(body: bytes) -> tuple[str, Json]:
    """Return event type and object of one line of a watch. A BOOKMARK has only a version, an ERROR nothing."""
    decoded = _LINE.decode(body)
    return decoded.type, _json(decoded.object)


def _json(decoded: _Node) -> Json:
    return dict(msgspec.to_builtins(decoded))
