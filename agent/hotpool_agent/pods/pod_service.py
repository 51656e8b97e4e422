"""A pod of Kubernetes → a service of the node (requirements A1, A3, B3, B11): pure.

Anything may stand in a pod's annotations: an annotation that cannot be read counts for nothing and is told of; a pod
whose type cannot be read is no service. Nothing raises.
"""

import hashlib
import re
from dataclasses import dataclass
from typing import Any, Final

from hotpool.api.names import LABEL_PATTERN
from hotpool_agent.catalogue.model import Attributes, Device, ServiceSpec
from hotpool_agent.catalogue.pod_attributes import read_attributes
from hotpool_agent.pods.json_access import Json, items, mapping, text
from hotpool_agent.pods.pod_state import readiness
from hotpool_agent.services.status import ServiceStatus

TYPE_LABEL: Final = "hotpool.dev/type"
VERSION_LABEL: Final = "app.kubernetes.io/version"
ATTRIBUTES: Final = "hotpool.dev/attributes"
DEVICE: Final = "hotpool.dev/device"
PORT: Final = "hotpool.dev/port"
MODEL: Final = "hotpool.dev/model"
_GPU: Final = "/gpu"
"""How the extended resources for whole GPUs end: nvidia.com/gpu, amd.com/gpu."""
_WORD: Final = re.compile(LABEL_PATTERN)
_WORD_MAX: Final = 63
_TEXT_MAX: Final = 253
_PORT_MAX: Final = 65535
_HASH: Final = 8
_SHOWN: Final = 60


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod as a service: `snapshot`, whose id is the wished one; or `refusal`, why it is none."""

    namespace: str
    name: str
    created: str
    """As the API writes it, so that it sorts."""
    status: ServiceStatus | None = None
    rejection: str | None = None

    @property
    def title(self) -> str:
        """The pod as people name it."""
        return f"{self.namespace}/{self.name}"


def pod_service(namespace: str, pod: Json) -> Pod:
    """The service that the pod of this namespace is."""
    metadata = mapping(pod.get("metadata"))
    labels = mapping(metadata.get("labels"))
    name, created = text(metadata.get("name")) or "", text(metadata.get("creationTimestamp")) or ""
    type_ = labels.get(TYPE_LABEL)
    if not name:
        return Pod(namespace, name, created, rejection="has no name")
    if not _is_word(type_):
        why = f"label {TYPE_LABEL}: {_quoted(type_)} is no type: 1 to 63 lower case letters, digits and '-'"
        return Pod(namespace, name, created, rejection=why)
    found, notes = readiness(pod), _Annotations(mapping(metadata.get("annotations")))
    spec = _spec(name if _is_word(name) else hashed_id(namespace, name), pod, labels, notes)
    said = "; ".join(filter(None, (found.error, *notes.problems))) or None
    shown = ServiceStatus(
        spec,
        found.state,
        since=found.since,
        restarts=found.restarts,
        last_error=said,
        pod=f"{namespace}/{name}",
        dropped=len(notes.problems),
    )
    return Pod(namespace, name, created, shown)


def hashed_id(namespace: str, name: str) -> str:
    """An id for a pod whose name cannot be one: a part of the name, and a hash that only this pod has."""
    plain = re.sub(r"[^a-z0-9]+", "-", name.lower())[: _WORD_MAX - _HASH - 1].strip("-") or "pod"
    return f"{plain}-{hashlib.sha256(f'{namespace}/{name}'.encode(errors='replace')).hexdigest()[:_HASH]}"


class _Annotations:
    """The annotations of one pod; each that cannot be read is complained of, and is as if it were not there."""

    def __init__(self, annotations: Json) -> None:
        self.problems: list[str] = []
        self._annotations = annotations

    def attributes(self) -> Attributes:
        """As in a catalogue entry; none where anything is wrong with them."""
        found = read_attributes(self._text(ATTRIBUTES) or "")
        if found.error:
            self._add_problem(ATTRIBUTES, found.error)
        return found.attributes

    def device(self, containers: list[Json]) -> Device | None:
        """As said; where nothing is said, gpu for a pod that asks for one."""
        match self._text(DEVICE):
            case None:
                asks = DEVICE not in self._annotations and any(map(_requests_gpu, containers))
                return "gpu" if asks else None
            case ("cpu" | "gpu") as said:
                return said
            case other:
                self._add_problem(DEVICE, f"must be cpu or gpu, not {_quoted(other)}")
        return None

    def port(self, containers: list[Json]) -> int | None:
        """As said; where nothing is said, the first port of a container."""
        said = self._text(PORT)
        if said is None:
            return None if PORT in self._annotations else _first_port(containers)
        if said.isascii() and said.isdecimal() and len(said) <= len(str(_PORT_MAX)) and 1 <= int(said) <= _PORT_MAX:
            return int(said)
        self._add_problem(PORT, f"must be 1..{_PORT_MAX}, not {_quoted(said)}")
        return None

    def model(self) -> str | None:
        """As said."""
        said = self._text(MODEL)
        if said is None or len(said) <= _TEXT_MAX:
            return said
        self._add_problem(MODEL, f"longer than {_TEXT_MAX} characters")
        return None

    def _text(self, key: str) -> str | None:
        said = self._annotations.get(key)
        if said is None or isinstance(said, str):
            return said
        self._add_problem(key, "must be a string")
        return None

    def _add_problem(self, key: str, words: str) -> None:
        self.problems.append(f"annotation {key}: {words}")


def _spec(identifier: str, pod: Json, labels: Json, notes: _Annotations) -> ServiceSpec:
    containers = items(mapping(pod.get("spec")).get("containers"))
    version = text(labels.get(VERSION_LABEL))
    return ServiceSpec(
        id=identifier,
        type=labels[TYPE_LABEL],
        device=notes.device(containers),
        model=notes.model(),
        # The API server keeps a label's value to 63 characters.
        version=version[:_WORD_MAX] if version else None,
        port=notes.port(containers),
        attributes=notes.attributes(),
    )


def _requests_gpu(container: Json) -> bool:
    resources = mapping(container.get("resources"))
    asked = mapping(resources.get("limits")) | mapping(resources.get("requests"))
    return any(name.endswith(_GPU) and str(quantity) != "0" for name, quantity in asked.items())


def _first_port(containers: list[Json]) -> int | None:
    ports = (port.get("containerPort") for container in containers for port in items(container.get("ports")))
    return next((port for port in ports if type(port) is int and 1 <= port <= _PORT_MAX), None)


def _is_word(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= _WORD_MAX and _WORD.fullmatch(value) is not None


def _quoted(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= _SHOWN else shown[:_SHOWN] + "…"
