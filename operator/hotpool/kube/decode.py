"""Decoding of wire objects to core values. No other module knows the wire shape.

Pure. An invalid object becomes a `DecodeError`, never an exception. An invalid report or spec becomes the `problem` of
the value, so that the rest of the object is kept.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from sys import intern
from typing import Any, Final, TypeVar, get_args

import msgspec
from pydantic import ValidationError

from hotpool.api import generator, meta, names, pool
from hotpool.api import slice as slices
from hotpool.api.capability import DrainStatus
from hotpool.common.ip_addresses import canonical_ip
from hotpool.core.kube_node_health import kube_node_health
from hotpool.core.model import (
    Generator,
    Heartbeat,
    Identity,
    Kind,
    KubeNode,
    Member,
    Meta,
    Node,
    Observed,
    Pool,
    Slice,
    StoredCondition,
)
from hotpool.kube.decode_commands import ServiceCommands
from hotpool.kube.decode_report import error_text, usable_report
from hotpool.kube.json_text import string

Json = Mapping[str, Any]
Spec = TypeVar("Spec", pool.PoolSpec, generator.GeneratorSpec)
Status = TypeVar("Status", pool.PoolStatus, generator.GeneratorStatus)

_INTERVALS_PER_LEASE: Final = 3
_LONGEST_NAME: Final = 253
_LONGEST_TIME: Final = 40
_LONGEST_VALUE: Final = 40
_UNREADABLE: Final = (LookupError, TypeError, ValueError, ArithmeticError, AttributeError)
"""Errors of reading a value of an unexpected shape."""
_TRISTATES: Final[Mapping[str, meta.Tristate]] = {status: status for status in get_args(meta.Tristate)}
_STATES: Final[Mapping[str, slices.MemberState]] = {state: state for state in get_args(slices.MemberState)}


class _Metadata(msgspec.Struct):
    name: str
    uid: str
    resourceVersion: str  # noqa: N815 - the wire's name.


class _Object(msgspec.Struct):
    metadata: _Metadata


_OBJECT: Final = msgspec.json.Decoder(_Object)


@dataclass(frozen=True, slots=True)
class DecodeError:
    """Reason for which an object is invalid."""

    kind: str
    name: str
    reason: str


def decode(kind: Kind, body: Json) -> Observed | DecodeError:
    """Decode one object of a watched kind."""
    try:
        match kind:
            case Kind.NODE:
                return _node(body)
            case Kind.KUBE_NODE:
                return _kube_node(body)
            case Kind.POOL:
                return _pool(body)
            case Kind.SLICE:
                return _slice(body)
            case Kind.GENERATOR:
                return _generator(body)
    except (ValidationError, *_UNREADABLE) as error:
        return DecodeError(kind, _name(body), error_text(error))


def identify(body: Json) -> tuple[str, Identity] | None:
    """Return name, uid and version of an object without reading the rest, or None if one is missing."""
    try:
        known = body["metadata"]
        return _text(known["name"]), Identity(_text(known["uid"]), int(known["resourceVersion"]))
    except _UNREADABLE:
        return None


def identify_json(body: msgspec.Raw) -> tuple[str, Identity] | None:
    """Return the same from JSON, without decoding the rest."""
    try:
        known = _OBJECT.decode(body).metadata
        return known.name, Identity(known.uid, int(known.resourceVersion))
    except (msgspec.DecodeError, ValueError):
        return None


def decode_lease(
    name: str, holder: str | None, renewed: str | None, duration: int | None, *, uid: str = "", version: str = ""
) -> Heartbeat | None:
    """Return a node Lease's heartbeat, or None, also before its first renewal. `duration`: leaseDurationSeconds."""
    if not name.startswith(meta.LEASE_PREFIX) or not renewed:
        return None
    interval = min(max(1.0, duration / _INTERVALS_PER_LEASE), names.MAX_INTERVAL_SECONDS) if duration else None
    return Heartbeat(name.removeprefix(meta.LEASE_PREFIX), holder or "", renewed, interval, uid, version)


def _name(body: Any) -> str:
    metadata = body.get("metadata") if isinstance(body, Mapping) else None
    name = metadata.get("name") if isinstance(metadata, Mapping) else None
    return name[:_LONGEST_NAME] if isinstance(name, str) else "?"


def _meta(body: Json) -> Meta:
    data = body["metadata"]
    return Meta(
        _text(data["name"]), _text(data["uid"]), int(data["resourceVersion"]), _version_number(data.get("generation"))
    )


def _text(value: Any) -> str:
    """Return text that is safe to write back. Raises for other types and for lone surrogates, which JSON can hold."""
    if not isinstance(value, str):
        raise TypeError(f"expected a string, not {type(value).__name__}")
    if not value.isascii():
        value.encode()
    return value


def _mapping(value: Any) -> Json:
    return value if isinstance(value, Mapping) else {}


def _version_number(value: Any) -> int:
    """Return a non-negative integer that is safe to write back, or 0."""
    return value if isinstance(value, int) and 0 <= value <= meta.MAX_SAFE_INTEGER else 0


def _pause_annotation(body: Json) -> Any:
    return (body["metadata"].get("annotations") or {}).get(meta.PAUSED_ANNOTATION)


def is_paused(body: Json) -> bool:
    """Return True if the annotation pauses a pool or generator."""
    return bool(_pause_annotation(body) == "true")


def _pause_problem(body: Json) -> str:
    """Return why the annotation has no effect. `false` and an empty one are meant to have none."""
    value = string(_pause_annotation(body))
    if value in {"", "true", "false"}:
        return ""
    return f'annotation {meta.PAUSED_ANNOTATION} is "{value[:_LONGEST_VALUE]}", and only "true" pauses'


def _owner(body: Json, kind: str, version: str = meta.API_VERSION) -> Mapping[str, str]:
    """Return the string fields (name, uid) of the first owner of a kind."""
    owners = body["metadata"].get("ownerReferences") or []
    owner: Json = next((o for o in owners if (o.get("apiVersion"), o.get("kind")) == (version, kind)), {})
    return {key: value for key, value in owner.items() if isinstance(value, str)}


def _node(body: Json) -> Node:
    spec, status = _mapping(body.get("spec")), _mapping(body.get("status"))
    report, problem = usable_report(status.get("report"))
    commands = ServiceCommands(spec, status)
    return Node(
        meta=_meta(body),
        labels=_labels(body),
        drain=spec.get("drain") is True,
        addresses=tuple(ip for item in _items(spec.get("addresses")) if (ip := canonical_ip(string(item)))),
        limits=dict(_limits(spec.get("limits"))),
        report=report,
        problem=problem,
        conditions=dict(_stored_conditions(status.get("conditions"))),
        drain_status=_drain_status(status.get("drain")),
        user_fields_empty=not (any(spec.values()) or _has_user_metadata(body["metadata"])),  # drain: false is default
        owner=_owner(body, "Node", "v1").get("uid"),
        ignored_commands=commands.ignored_text(),
        refused=commands.refused() if report else (),
    )


def _drain_status(raw: Any) -> DrainStatus | None:
    """Return the stored progress of a drain. An invalid one counts as absent, because the operator writes it whole."""
    with suppress(ValidationError):
        return DrainStatus.model_validate(raw) if raw else None
    return None


def _limits(limits: Any) -> Iterator[tuple[str, int]]:
    """Yield type and maximum of the valid limits."""
    for item in map(_mapping, _items(limits)):
        type_, maximum = item.get("type"), item.get("maxConcurrent")
        if isinstance(type_, str) and isinstance(maximum, int) and maximum > 0:
            yield string(type_), maximum


def _labels(body: Json) -> dict[str, str]:
    return {_text(key): _text(value) for key, value in (body["metadata"].get("labels") or {}).items()}


def _kube_node(body: Json) -> KubeNode:
    """Decode a v1 Node. Its label strings are interned, because all Nodes have nearly the same ones."""
    labels = {intern(key): intern(value) for key, value in _labels(body).items()}
    spec, status = _mapping(body.get("spec")), _mapping(body.get("status"))
    conditions = map(_mapping, _items(status.get("conditions")))
    ready: Json = next((item for item in conditions if item.get("type") == "Ready"), {})
    taints = (string(_mapping(item).get("key")) for item in _items(spec.get("taints")))
    health = kube_node_health(
        _TRISTATES.get(string(ready.get("status"))),
        string(ready.get("reason")),
        string(ready.get("message")),
        taints,
    )
    addresses = tuple(_ips_of_kube_node(_items(status.get("addresses"))))
    return KubeNode(_meta(body), labels, spec.get("unschedulable") is True, health, addresses)


def _ips_of_kube_node(addresses: Iterable[Any]) -> Iterator[str]:
    """Yield the IP addresses of a v1 Node: its other addresses are names."""
    for item in map(_mapping, addresses):
        if item.get("type") in {"InternalIP", "ExternalIP"} and (ip := canonical_ip(string(item.get("address")))):
            yield ip


def _has_user_metadata(metadata: Json) -> bool:
    """Return True if people set a label or annotation (requirement C4). The agent's own have its prefix."""
    keys = (*(metadata.get("labels") or {}), *(metadata.get("annotations") or {}))
    return any(not key.startswith(meta.AGENT_PREFIX) for key in keys)


def _stored_conditions(conditions: Any) -> Iterator[tuple[str, StoredCondition]]:
    """Yield type and content of the valid conditions. Other clients may have written invalid ones."""
    for condition in _items(conditions):
        with suppress(*_UNREADABLE):
            stored = StoredCondition(
                status=_text(condition["status"]),
                reason=_text(condition.get("reason") or ""),
                message=intern(_text(condition.get("message") or "")),
                since=_text(condition["lastTransitionTime"]),
                generation=_version_number(condition.get("observedGeneration")),
            )
            if 0 < len(stored.since) <= _LONGEST_TIME:
                yield _text(condition["type"]), stored


def _pool(body: Json) -> Pool:
    spec, problem = _spec(pool.PoolSpec(), body)
    return Pool(
        meta=_meta(body),
        spec=spec,
        status=_status(pool.PoolStatus, body),
        paused=is_paused(body),
        pause_problem=_pause_problem(body),
        owner=_owner(body, "NodePoolGenerator").get("uid"),
        created=string(body["metadata"].get("creationTimestamp")),
        problem=problem,
    )


def _spec(empty: Spec, body: Json) -> tuple[Spec, str | None]:
    """Return the spec, or the empty one and the problem of an invalid one."""
    try:
        return type(empty).model_validate(body.get("spec") or {}), None
    except ValidationError as error:
        return empty, f"spec.{error_text(error)}"


def _status(model: type[Status], body: Json) -> Status:
    """Return the stored status. An invalid one counts as empty, because the operator writes it whole."""
    try:
        return model.model_validate(body.get("status") or {})
    except ValidationError:
        return model()


def _slice(body: Json) -> Slice:
    """Decode a slice. One with nothing valid but its identity is kept, so that it can be repaired (D10)."""
    owner = _owner(body, "NodePool")
    label = (body["metadata"].get("labels") or {}).get(meta.POOL_LABEL)
    name = _text(owner.get("name") or label or _meta(body).name.rpartition("-")[0])
    if not name:
        raise ValueError(f"no owner of kind NodePool, no label {meta.POOL_LABEL} and no name of a slice")
    members = tuple(member for item in _items(body.get("members")) if (member := _member(item)))
    return Slice(
        _meta(body), name, _version_number(body.get("term")), members, owner.get("uid"), labelled=label == name
    )


def _items(value: Any) -> Iterable[Any]:
    return value if isinstance(value, list) else ()


def _member(item: Any) -> Member | None:
    """Return one member, or None. Without pydantic and with interned strings, because a fleet may have a million."""
    try:
        return Member(intern(_text(item["node"])), _STATES[item["state"]], intern(_text(item["since"])))
    except _UNREADABLE:
        return None


def _generator(body: Json) -> Generator:
    spec, problem = _spec(generator.GeneratorSpec(rule=generator.GeneratorRule()), body)
    return Generator(
        meta=_meta(body),
        spec=spec,
        status=_status(generator.GeneratorStatus, body),
        paused=is_paused(body),
        pause_problem=_pause_problem(body),
        problem=problem,
    )
