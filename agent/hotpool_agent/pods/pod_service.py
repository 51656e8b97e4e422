"""Translation of a v1 Pod to a service of the node (requirements A1, A3, B3, B11): pure.

Annotations are untrusted. An invalid one is ignored and reported in `last_error`; a pod with an invalid type is
rejected. Nothing raises.
"""

import hashlib
import re
from dataclasses import dataclass, replace
from typing import Any, Final

from hotpool.api.names import LABEL_PATTERN
from hotpool.common.ip_addresses import canonical_ip
from hotpool_agent.catalogue.model import MAX_CONCURRENT, Attributes, Device, ServiceSpec, app_protocol
from hotpool_agent.catalogue.pod_attributes import read_attributes
from hotpool_agent.endpoints.service_endpoint import pod_endpoint
from hotpool_agent.json_access import Json, items, mapping, text
from hotpool_agent.pods.pod_state import readiness
from hotpool_agent.services.status import ServiceStatus
from hotpool_agent.untrusted_text import quoted, representable

TYPE_LABEL: Final = "hotpool.dev/type"
VERSION_LABEL: Final = "app.kubernetes.io/version"
ATTRIBUTES: Final = "hotpool.dev/attributes"
DEVICE: Final = "hotpool.dev/device"
PORT: Final = "hotpool.dev/port"
MODEL: Final = "hotpool.dev/model"
APP_PROTOCOL: Final = "hotpool.dev/app-protocol"
CAPACITY: Final = "hotpool.dev/max-concurrent"
_GPU: Final = "/gpu"
"""Suffix of the extended resources for whole GPUs: nvidia.com/gpu, amd.com/gpu."""
_WORD: Final = re.compile(LABEL_PATTERN)
_WORD_MAX: Final = 63
_TEXT_MAX: Final = 253
_PORT_MAX: Final = 65535
_HASH: Final = 8


@dataclass(frozen=True, slots=True)
class Pod:
    """Pod with either `status`, the service with its preferred id, or `rejection`, the reason why it is no service."""

    namespace: str
    name: str
    created: str
    """creationTimestamp as text, which sorts by time."""
    status: ServiceStatus | None = None
    rejection: str | None = None

    @property
    def title(self) -> str:
        """NAMESPACE/NAME."""
        return f"{self.namespace}/{self.name}"


def pod_service(namespace: str, pod: Json) -> Pod:
    """Translate a pod of this namespace."""
    metadata = mapping(pod.get("metadata"))
    labels = mapping(metadata.get("labels"))
    name, created = text(metadata.get("name")) or "", text(metadata.get("creationTimestamp")) or ""
    type_ = labels.get(TYPE_LABEL)
    if not name:
        return Pod(namespace, name, created, rejection="has no name")
    if not _is_word(type_):
        reason = f"label {TYPE_LABEL}: {quoted(type_)} is not a type: use 1 to 63 lower case letters, digits and '-'"
        return Pod(namespace, name, created, rejection=reason)
    current, annotations = readiness(pod), _Annotations(mapping(metadata.get("annotations")))
    spec = _spec(name if _is_word(name) else hashed_id(namespace, name), pod, labels, annotations)
    status = ServiceStatus(
        spec,
        current.state,
        since=current.since,
        restarts=current.restarts,
        last_error="; ".join(filter(None, (current.error, *annotations.problems))) or None,
        pod=f"{namespace}/{name}",
        pod_uid=_uid(metadata),
        dropped=len(annotations.problems),
    )
    if current.state == "Running":
        found = pod_endpoint(spec, _addresses(pod))
        status = replace(status, endpoint=found.endpoint, endpoint_reason=found.reason)
    return Pod(namespace, name, created, status)


def hashed_id(namespace: str, name: str) -> str:
    """Return an id for a pod whose name cannot be one: a part of the name, and a hash of namespace and name."""
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower())[: _WORD_MAX - _HASH - 1].strip("-") or "pod"
    return f"{plain}-{hashlib.sha256(f'{namespace}/{name}'.encode(errors='replace')).hexdigest()[:_HASH]}"


class _Annotations:
    """Annotations of one pod. An invalid one is treated as absent and added to `problems`."""

    def __init__(self, annotations: Json) -> None:
        self.problems: list[str] = []
        self._annotations = annotations

    def attributes(self) -> Attributes:
        """Return the attributes as in a catalogue entry; empty if any of them is invalid."""
        attributes, error = read_attributes(self._text(ATTRIBUTES) or "")
        if error:
            self._add_problem(ATTRIBUTES, error)
        return attributes

    def device(self, containers: list[Json]) -> Device | None:
        """Return the declared device. Without the annotation: gpu for a pod that requests one."""
        match self._text(DEVICE):
            case None:
                requested = DEVICE not in self._annotations and any(map(_requests_gpu, containers))
                return "gpu" if requested else None
            case ("cpu" | "gpu") as value:
                return value
            case other:
                self._add_problem(DEVICE, f"must be cpu or gpu, not {quoted(other)}")
        return None

    def port(self, containers: list[Json]) -> int | None:
        """Return the port of the annotation or, without it, the first port of the first container with one."""
        value = self._text(PORT)
        if value is None:
            return None if PORT in self._annotations else _first_port(containers)
        return self._number(PORT, value, _PORT_MAX)

    def max_concurrent(self) -> int | None:
        """Return the declared limit of requests or streams at a time."""
        value = self._text(CAPACITY)
        return None if value is None else self._number(CAPACITY, value, MAX_CONCURRENT)

    def model(self) -> str | None:
        """Return the declared model."""
        value = self._text(MODEL)
        if value is None or len(value) <= _TEXT_MAX:
            return value
        self._add_problem(MODEL, f"longer than {_TEXT_MAX} characters")
        return None

    def app_protocol(self) -> str | None:
        """Return the declared application protocol."""
        value = self._text(APP_PROTOCOL)
        if value is None:
            return None
        try:
            return app_protocol(value)
        except ValueError as error:
            self._add_problem(APP_PROTOCOL, f"{error}, not {quoted(value)}")
        return None

    def _number(self, key: str, value: str, most: int) -> int | None:
        if value.isascii() and value.isdecimal() and len(value) <= len(str(most)) and 1 <= int(value) <= most:
            return int(value)
        self._add_problem(key, f"must be 1..{most}, not {quoted(value)}")
        return None

    def _text(self, key: str) -> str | None:
        value = self._annotations.get(key)
        if value is None:
            return None
        if not isinstance(value, str):
            self._add_problem(key, "must be a string")
            return None
        valid = representable(value)
        if valid is None:
            self._add_problem(key, "has a character that no report can hold: NUL, or half of a surrogate pair")
        return valid

    def _add_problem(self, key: str, problem: str) -> None:
        self.problems.append(f"annotation {key}: {problem}")


def _spec(identifier: str, pod: Json, labels: Json, annotations: _Annotations) -> ServiceSpec:
    containers = items(mapping(pod.get("spec")).get("containers"))
    version = representable(text(labels.get(VERSION_LABEL)) or "")
    return ServiceSpec(
        id=identifier,
        type=labels[TYPE_LABEL],
        device=annotations.device(containers),
        model=annotations.model(),
        # The API server limits a label's value to 63 characters.
        version=version[:_WORD_MAX] if version else None,
        port=annotations.port(containers),
        appProtocol=annotations.app_protocol(),
        maxConcurrent=annotations.max_concurrent(),
        attributes=annotations.attributes(),
    )


def _addresses(pod: Json) -> tuple[str, ...]:
    """Return the pod's own addresses, those of its Node for a pod in the host's network."""
    addresses = items(mapping(pod.get("status")).get("podIPs"))
    return tuple(ip for item in addresses if (ip := canonical_ip(text(item.get("ip")) or "")))


def _uid(metadata: Json) -> str | None:
    uid = representable(text(metadata.get("uid")) or "")
    return uid if uid and len(uid) <= _WORD_MAX else None


def _requests_gpu(container: Json) -> bool:
    resources = mapping(container.get("resources"))
    requested = mapping(resources.get("limits")) | mapping(resources.get("requests"))
    return any(name.endswith(_GPU) and str(quantity) != "0" for name, quantity in requested.items())


def _first_port(containers: list[Json]) -> int | None:
    ports = (port.get("containerPort") for container in containers for port in items(container.get("ports")))
    return next((port for port in ports if type(port) is int and 1 <= port <= _PORT_MAX), None)


def _is_word(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= _WORD_MAX and _WORD.fullmatch(value) is not None
