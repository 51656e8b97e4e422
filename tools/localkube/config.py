"""Read kind's ``--config`` file and ``--image``.

Reads the fields that have a meaning here, and names the first one that does not. Must not ignore a field silently.
"""

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from localkube.errors import KindError
from localkube.ports import LOOPBACK

API_VERSION = "kind.x-k8s.io/v1alpha4"
_FIELDS = {"kind", "apiVersion", "name", "nodes", "featureGates", "runtimeConfig", "networking"}
_CONTROL_PLANE, _WORKER = "control-plane", "worker"
# The control plane is no node here, so it carries no labels.
_NODE_FIELDS = {_CONTROL_PLANE: {"role", "image"}, _WORKER: {"role", "image", "labels"}}
_PORTS = range(1, 65536)
_GATE = re.compile(r"[A-Za-z0-9]+")
_API = re.compile(r"[A-Za-z0-9./-]+")
_LABEL = re.compile(r"[A-Za-z0-9._/-]+")
_VALUE = re.compile(r"[A-Za-z0-9._-]*")


@dataclass(frozen=True)
class ClusterConfig:
    """The fields of kind's Cluster that this cluster can honour."""

    name: str | None = None
    feature_gates: Mapping[str, bool] = field(default_factory=dict)
    runtime_config: Mapping[str, str] = field(default_factory=dict)
    api_server_port: int | None = None
    images: tuple[str, ...] = ()
    worker_labels: Mapping[str, str] | None = None  # None: no worker.


def load(text: str, source: str) -> ClusterConfig:
    """Read a Cluster of kind's v1alpha4; an empty file means the defaults."""
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise KindError(f"{source} is not YAML: {error}") from error
    if document is None:
        return ClusterConfig()
    try:
        return _read(_mapping(document, "the file"))
    except KindError as error:
        raise KindError(f"{source}: {error}") from error


def read_text(path: str) -> str:
    """The text of a config file; ``-`` is standard input, as in kind."""
    if path == "-":
        return sys.stdin.read()
    try:
        return Path(path).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise KindError(f"cannot read the config file {path}: {error}") from error


def check_image(image: str, version: str) -> None:
    """Accept an image name only if it stands for the Kubernetes that is built here."""
    tag = image.partition("@")[0].rpartition(":")[2]
    minor = version.rpartition(".")[0]
    if tag != version and not tag.startswith(f"{minor}."):
        raise KindError(f"image {image!r}: this local cluster has Kubernetes {version} only (kindest/node:{version})")


def _read(document: Mapping[str, Any]) -> ClusterConfig:
    _only(document, _FIELDS, "")
    _expect(document, "kind", "Cluster")
    _expect(document, "apiVersion", API_VERSION)
    name, nodes = document.get("name"), _nodes(document.get("nodes"))
    if name is not None and not isinstance(name, str):
        raise KindError("field name must be a string")
    return ClusterConfig(
        name=name,
        feature_gates=_feature_gates(_mapping(document.get("featureGates"), "field featureGates")),
        runtime_config=_runtime_config(_mapping(document.get("runtimeConfig"), "field runtimeConfig")),
        api_server_port=_port(_mapping(document.get("networking"), "field networking")),
        images=tuple(str(node["image"]) for node in nodes if node.get("image")),
        worker_labels=_worker_labels(nodes),
    )


def _mapping(value: Any, what: str) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise KindError(f"{what} must be a map")
    return value


def _only(value: Mapping[str, Any], known: set[str], prefix: str) -> None:
    unknown = sorted(value.keys() - known)
    if unknown:
        raise KindError(f"field {prefix}{unknown[0]} is not supported by this local cluster")


def _expect(document: Mapping[str, Any], name: str, wanted: str) -> None:
    if document.get(name) != wanted:
        raise KindError(f"field {name} must be {wanted}, not {document.get(name)!r}")


def _feature_gates(gates: Mapping[str, Any]) -> dict[str, bool]:
    for name, on in gates.items():
        if not isinstance(on, bool) or not _GATE.fullmatch(name):
            raise KindError(f"field featureGates.{name} must be true or false")
    return dict(gates)


def _runtime_config(apis: Mapping[str, Any]) -> dict[str, str]:
    result = {api: str(value).lower() for api, value in apis.items()}
    for api, value in result.items():
        if value not in {"true", "false"} or not _API.fullmatch(api):
            raise KindError(f'field runtimeConfig.{api} must be "true" or "false"')
    return result


def _port(networking: Mapping[str, Any]) -> int | None:
    _only(networking, {"apiServerPort", "apiServerAddress"}, "networking.")
    address, port = networking.get("apiServerAddress", LOOPBACK), networking.get("apiServerPort", 0)
    if address != LOOPBACK:
        raise KindError(f"field networking.apiServerAddress must be {LOOPBACK}, not {address!r}")
    # As in kind, 0 and -1 leave the choice to us.
    if port in {0, -1}:
        return None
    if not isinstance(port, int) or isinstance(port, bool) or port not in _PORTS:
        raise KindError(f"field networking.apiServerPort must be a port, not {port!r}")
    return port


def _nodes(nodes: Any) -> list[Mapping[str, Any]]:
    """Check the nodes: a control plane, and at most one worker."""
    if nodes is None:
        return []
    if not isinstance(nodes, list):
        raise KindError("field nodes must be a list")
    read = [_mapping(node, f"field nodes[{number}]") for number, node in enumerate(nodes)]
    roles = [_checked_role(node, number) for number, node in enumerate(read)]
    for role, what in ((_CONTROL_PLANE, "control-plane node"), (_WORKER, "worker at most")):
        if roles.count(role) > 1:
            raise KindError(f"field nodes: this local cluster has one {what}, not {roles.count(role)}")
    if roles and _CONTROL_PLANE not in roles:
        raise KindError("field nodes: a cluster needs a control-plane node")
    return read


def _checked_role(node: Mapping[str, Any], number: int) -> str:
    role = str(node.get("role", _CONTROL_PLANE))
    if role not in _NODE_FIELDS:
        raise KindError(f"field nodes[{number}].role must be {' or '.join(_NODE_FIELDS)}, not {role!r}")
    _only(node, _NODE_FIELDS[role], f"nodes[{number}].")
    return role


def _worker_labels(nodes: list[Mapping[str, Any]]) -> dict[str, str] | None:
    for number, node in enumerate(nodes):
        if node.get("role") == _WORKER:
            labels = _mapping(node.get("labels"), f"field nodes[{number}].labels")
            for label, value in labels.items():
                if not isinstance(value, str) or not _LABEL.fullmatch(label) or not _VALUE.fullmatch(value):
                    raise KindError(f"field nodes[{number}].labels.{label} must be a label's name and text")
            return dict(labels)
    return None
