"""v1 Nodes as bytes → only what is wanted of them: a whole one is tens of kilobytes, most of it status.

Pure. What comes out has the wire's own shape, so that `kube.decode` reads it like any other object. Raises
msgspec.DecodeError for what is no Node.
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


class _Node(msgspec.Struct):
    metadata: _Metadata
    spec: _Spec | None = None


class _ListMetadata(msgspec.Struct):
    resourceVersion: str  # noqa: N815
    continue_: str = msgspec.field(default="", name="continue")


class _List(msgspec.Struct):
    metadata: _ListMetadata
    items: list[_Node]


class _Line(msgspec.Struct):
    type: str
    object: _Node


_NODE: Final = msgspec.json.Decoder(_Node)
_LIST: Final = msgspec.json.Decoder(_List)
_LINE: Final = msgspec.json.Decoder(_Line)


def node(body: bytes) -> Json:
    """One Node."""
    return _json(_NODE.decode(body))


def page(body: bytes) -> tuple[list[Json], str, str]:
    """The Nodes of one page of a list, the version of the list, and how to ask for the next page (empty: the last)."""
    found = _LIST.decode(body)
    return [_json(item) for item in found.items], found.metadata.resourceVersion, found.metadata.continue_


def line(body: bytes) -> tuple[str, Json]:
    """Event type and object of one line of a watch; of a BOOKMARK only the version is there, of an ERROR nothing."""
    found = _LINE.decode(body)
    return found.type, _json(found.object)


def _json(found: _Node) -> Json:
    return dict(msgspec.to_builtins(found))
