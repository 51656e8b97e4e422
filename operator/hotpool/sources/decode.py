"""Wire objects → core values; the only place that knows the wire shape (design, section 2).

Called by the reconciler for each object that a watch, a list or a write brings. Pure. An object that cannot be read is
a `Rejection`, never an exception; a report or spec that cannot be used is a `problem` of the value, so that nothing
already known is lost.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from sys import intern
from typing import Any, Final, get_args

from pydantic import ValidationError

from hotpool.api import capability, generator, meta, pool
from hotpool.api import slice as slices
from hotpool.api.languages import normalise_language, normalise_languages
from hotpool.core.model import (
    Generator,
    Heartbeat,
    Identity,
    Kind,
    Member,
    Meta,
    Node,
    Observed,
    Offer,
    Pool,
    Recorded,
    Report,
    Rule,
    Slice,
    TypeState,
)

Json = Mapping[str, Any]

_INTERVALS_PER_LEASE: Final = 3
_STATES: Final[Mapping[str, slices.MemberState]] = {state: state for state in get_args(slices.MemberState)}


@dataclass(frozen=True, slots=True)
class Rejection:
    """An object that cannot be read, and why."""

    kind: str
    name: str
    why: str


def decode(kind: Kind, body: Json) -> Observed | Rejection:
    """One object of a watched kind."""
    try:
        match kind:
            case Kind.NODE:
                return _node(body)
            case Kind.POOL:
                return _pool(body)
            case Kind.SLICE:
                return _slice(body)
            case Kind.GENERATOR:
                return _generator(body)
    except (ValidationError, LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        return Rejection(kind, _name(body), _why(error))


def identify(body: Json) -> tuple[str, Identity] | None:
    """Name, uid and version of an object, without reading the rest; None where it has none."""
    try:
        known = body["metadata"]
        return _text(known["name"]), Identity(_text(known["uid"]), int(known["resourceVersion"]))
    except (LookupError, TypeError, ValueError):
        return None


def decode_lease(
    name: str, holder: str | None, renewed: str | None, duration: int | None, *, uid: str = "", version: str = ""
) -> Heartbeat | None:
    """What a Lease says; None where it is not a node's or was not renewed yet. `duration`: leaseDurationSeconds."""
    if not name.startswith(meta.LEASE_PREFIX) or not renewed:
        return None
    interval = min(max(1.0, duration / _INTERVALS_PER_LEASE), meta.MAX_INTERVAL_SECONDS) if duration else None
    return Heartbeat(name.removeprefix(meta.LEASE_PREFIX), holder or "", renewed, interval, uid, version)


def _why(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
    return f"{type(error).__name__}: {error}"


def _name(body: Any) -> str:
    metadata = body.get("metadata") if isinstance(body, Mapping) else None
    return str(metadata.get("name", "?")) if isinstance(metadata, Mapping) else "?"


def _meta(body: Json) -> Meta:
    data = body["metadata"]
    return Meta(_text(data["name"]), _text(data["uid"]), int(data["resourceVersion"]), int(data.get("generation") or 0))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"a text is wanted, not {type(value).__name__}")
    return value


def _paused(body: Json) -> bool:
    return (body["metadata"].get("annotations") or {}).get(meta.PAUSED_ANNOTATION) == "true"


def _owner(body: Json, kind: str) -> Mapping[str, str]:
    owners = body["metadata"].get("ownerReferences") or []
    return next((owner for owner in owners if owner.get("kind") == kind), {})


def _node(body: Json) -> Node:
    spec = body.get("spec") or {}
    status = body.get("status") or {}
    report, problem = _usable_report(status.get("report"))
    return Node(
        meta=_meta(body),
        labels={_text(key): _text(value) for key, value in (body["metadata"].get("labels") or {}).items()},
        drain=spec.get("drain") is True,
        report=report,
        problem=problem,
        conditions={c["type"]: _recorded(c) for c in status.get("conditions") or []},
        untouched=not any(spec.values()) and not _touched(body["metadata"]),  # drain: false is the default
    )


def _touched(metadata: Json) -> bool:
    """Whether people set a label or an annotation (behaviour C4); the agent's own have its prefix."""
    words = (*(metadata.get("labels") or {}), *(metadata.get("annotations") or {}))
    return any(not word.startswith(meta.AGENT_PREFIX) for word in words)


def _recorded(condition: Json) -> Recorded:
    return Recorded(
        status=_text(condition["status"]),
        reason=_text(condition.get("reason") or ""),
        since=_text(condition.get("lastTransitionTime") or ""),
        generation=int(condition.get("observedGeneration") or 0),
    )


def _usable_report(raw: Json | None) -> tuple[Report | None, str | None]:
    if raw is None:
        return None, None
    try:
        return _report(capability.Report.model_validate(raw)), None
    except ValidationError as error:
        return None, f"status.report.{_why(error)}"


def _report(raw: capability.Report) -> Report:
    types = {c.type: TypeState(c.ready, c.reason, c.services) for c in raw.capabilities}
    offers: dict[str, tuple[Offer, ...]] = {}
    for service in raw.services:
        state = types.get(service.type)
        if state and state.ready and service.state == "Running" and service.id in state.services:
            offers[service.type] = (*offers.get(service.type, ()), _offer(service))
    return Report(
        instance=raw.instance,
        session=raw.session,
        epoch=raw.epoch,
        sequence=raw.sequence,
        time=raw.time,
        interval=float(raw.interval_seconds),
        leaving=raw.leaving,
        types=types,
        offers=offers,
    )


def _offer(service: capability.Service) -> Offer:
    languages = frozenset(normalise_languages(service.languages))
    attributes = {item.key: frozenset(item.values) for item in service.attributes}
    for key, value in (("model", service.model), ("version", service.version), ("device", service.device)):
        if value is not None:
            attributes.setdefault(key, frozenset({value}))
    attributes.setdefault("languages", languages)
    return Offer(service.id, service.type, languages, tuple(_rule(rule) for rule in service.rules), attributes)


def _rule(rule: capability.TranslationRule) -> Rule:
    return Rule(
        kind=rule.kind,
        languages=frozenset(normalise_languages(rule.languages)),
        pairs=frozenset(_pairs(rule.pairs)),
        blocked=frozenset(_pairs(rule.blocked)),
    )


def _pairs(raw: Iterable[str]) -> Iterable[str]:
    """`src-tgt` with both codes in normal form. A code may itself hold a `-` (zh-cn-en): all splits are tried."""
    for pair in raw:
        parts = pair.lower().split("-")
        splits = [("-".join(parts[:cut]), "-".join(parts[cut:])) for cut in range(1, len(parts))]
        known = [(normalise_language(source), normalise_language(target)) for source, target in splits]
        yield from (f"{s}-{t}" for s, t in known if s and t and "-" not in s + t)


def _pool(body: Json) -> Pool:
    problem = None
    try:
        spec = pool.PoolSpec.model_validate(body.get("spec") or {})
    except ValidationError as error:
        spec, problem = pool.PoolSpec(), f"spec.{_why(error)}"
    return Pool(
        meta=_meta(body),
        spec=spec,
        status=pool.PoolStatus.model_validate(body.get("status") or {}),
        paused=_paused(body),
        owner=_owner(body, "NodePoolGenerator").get("uid"),
        problem=problem,
    )


def _slice(body: Json) -> Slice:
    owner = _owner(body, "NodePool")
    label = (body["metadata"].get("labels") or {}).get(meta.POOL_LABEL)
    name = _text(owner.get("name") or label or _meta(body).name.rpartition("-")[0])
    if not name:
        raise ValueError(f"neither an owner of kind NodePool nor a label {meta.POOL_LABEL} nor the name of a slice")
    members = tuple(_member(item) for item in body.get("members") or ())
    return Slice(_meta(body), name, int(body["term"]), members, owner.get("uid"), labelled=label == name)


def _member(item: Json) -> Member:
    """One member; by hand and with shared strings, because a fleet may have a million."""
    state = _STATES.get(item["state"])
    if state is None:
        raise ValueError(f"members.state: {item['state']!r} is none of {', '.join(_STATES)}")
    return Member(intern(_text(item["node"])), state, intern(_text(item["since"])))


def _generator(body: Json) -> Generator:
    problem = None
    try:
        spec = generator.GeneratorSpec.model_validate(body.get("spec") or {})
    except ValidationError as error:
        spec, problem = generator.GeneratorSpec(rule=generator.GeneratorRule()), f"spec.{_why(error)}"
    return Generator(
        meta=_meta(body),
        spec=spec,
        status=generator.GeneratorStatus.model_validate(body.get("status") or {}),
        paused=_paused(body),
        problem=problem,
    )
