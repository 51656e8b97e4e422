"""Keeps a report within the bounds of its schema (requirement B11, design section 1): pure.

An item that breaks a bound is left out and counted, never the whole report; above 64 KiB details go in a fixed order,
capabilities never. Languages are brought to their normal form here, because a bad one is an item too.
"""

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

from hotpool.api.capability import (
    MAX_ATTRIBUTES,
    MAX_BLOCKED,
    MAX_LANGUAGES,
    MAX_RULES,
    MAX_SERVICES,
    MAX_VALUES,
    REPORT_BYTES,
    Attribute,
    Report,
    Service,
    TranslationRule,
)
from hotpool.api.languages import normalise_language
from hotpool_agent.catalogue.language_pairs import normalise_pair

if TYPE_CHECKING:
    from hotpool_agent.catalogue.model import Rule, ServiceSpec
    from hotpool_agent.services.status import ServiceStatus

T = TypeVar("T")

_SHORT: Final = 63
_TEXT: Final = 253
_LONG: Final = 1024
_STAMPS: Final = 256
"""Bytes set aside for the stamps and the envelope of a report."""
_HEAD: Final = 4096
"""Bytes set aside for what a report holds beside its services: platform, hardware, what types are not ready."""
_NAMED: Final = 160
"""Bytes by which a running service adds to the capabilities: its id, and its type where it is the first."""


class DropCounter:
    """Counts what was left out."""

    def __init__(self) -> None:
        self.count = 0

    def short(self, text: str | None, limit: int = _TEXT) -> str | None:
        """The text, or None (and one more) if it is too long."""
        if text is None or len(text) <= limit:
            return text
        self.count += 1
        return None

    def kept(self, items: Iterable[T | None], limit: int) -> tuple[T, ...]:
        """The valid items, at most `limit`; None stands for an invalid one."""
        given = list(items)
        valid = [item for item in given if item is not None]
        self.count += len(given) - min(len(valid), limit)
        return tuple(valid[:limit])


def bounded_services(snapshots: Sequence["ServiceStatus"], dropped: DropCounter) -> tuple[Service, ...]:
    """The services as the report holds them, normalised and within bounds."""
    return dropped.kept((_service(snapshot, dropped) for snapshot in snapshots), MAX_SERVICES)


def affordable(
    snapshots: Sequence["ServiceStatus"], limit: int = REPORT_BYTES
) -> tuple[list["ServiceStatus"], list[str]]:
    """The snapshots whose running services have room in a report of `limit` bytes, and the pods that have none.

    Entries of the catalogue always have: they are few, and of the node's own people. Of pods the first come first, so
    that a new one takes nobody's place. What does not run needs no room here: `fit` leaves it out.
    """
    if all(snapshot.pod is None for snapshot in snapshots):
        return list(snapshots), []
    sizes = [_room(snapshot) for snapshot in snapshots]
    free = limit - _STAMPS - _HEAD - sum(size for size, item in zip(sizes, snapshots, strict=True) if item.pod is None)
    kept: list[ServiceStatus] = []
    left_out: list[str] = []
    for size, snapshot in zip(sizes, snapshots, strict=True):
        if snapshot.pod is None or size <= free:
            kept.append(snapshot)
            free -= 0 if snapshot.pod is None else size
        else:
            left_out.append(snapshot.pod)
    return kept, left_out


def _room(snapshot: "ServiceStatus") -> int:
    return _bytes(_service(snapshot, DropCounter())) + _NAMED if snapshot.state == "Running" else 0


def fit(report: Report, limit: int = REPORT_BYTES) -> Report:
    """The report in at most `limit` bytes of JSON as far as possible; `truncated` counts what was left out for that.

    In order: last errors, details of services that do not run, those services. What runs is never left out, so a report
    of very many running services may stay larger; the schema's own bounds still hold.
    """
    excess = _size(report.model_dump(mode="json", by_alias=True)) + _STAMPS - limit
    if excess <= 0:
        return report
    services: list[Service | None] = list(report.services)
    count = 0
    for shorten in (_without_error, _without_details, _nothing):
        for index in reversed(range(len(services))):
            service = services[index]
            if excess > 0 and service is not None and (shorter := shorten(service)) != service:
                excess -= _bytes(service) - _bytes(shorter)
                services[index] = shorter
                count += 1
    kept = tuple(service for service in services if service is not None)
    return report.model_copy(update={"services": kept, "truncated": count})


def _service(snapshot: "ServiceStatus", dropped: DropCounter) -> Service:
    spec = snapshot.spec
    dropped.count += snapshot.dropped
    return Service(
        id=spec.id,
        type=spec.type,
        device=spec.device,
        state=snapshot.state,
        since=snapshot.since,
        port=spec.port,
        pid=snapshot.pid,
        version=dropped.short(spec.version),
        model=dropped.short(spec.model),
        restarts=snapshot.restarts,
        last_error=snapshot.last_error[:_LONG] if snapshot.last_error else None,
        desired=snapshot.desired,
        desired_by=snapshot.desired_by,
        request_id=snapshot.request_id,
        languages=_languages(spec.attributes.languages, dropped),
        rules=dropped.kept((_rule(rule, dropped) for rule in spec.attributes.rules), MAX_RULES),
        attributes=_attributes(spec, dropped),
    )


def _languages(codes: Iterable[str], dropped: DropCounter) -> tuple[str, ...]:
    # `auto` is no language, and its absence is no loss: it is not counted.
    normal = [code for raw in codes if (code := normalise_language(raw))]
    return dropped.kept((_unless_long(code, _SHORT) for code in dict.fromkeys(normal)), MAX_LANGUAGES)


def _rule(rule: "Rule", dropped: DropCounter) -> TranslationRule | None:
    # Leaving out one blocked pair would allow it: the whole rule goes instead.
    if len(rule.blocked) > MAX_BLOCKED:
        return None
    return TranslationRule(
        kind=rule.kind,
        languages=_languages(rule.languages, dropped),
        pairs=_pairs(rule.pairs, dropped),
        blocked=_pairs(rule.blocked, dropped),
    )


def _pairs(given: Iterable[str], dropped: DropCounter) -> tuple[str, ...]:
    return dropped.kept(dict.fromkeys(normalise_pair(pair) for pair in given), MAX_BLOCKED)


def _attributes(spec: "ServiceSpec", dropped: DropCounter) -> tuple[Attribute, ...]:
    def one(key: str, values: Iterable[str]) -> Attribute | None:
        if _unless_long(key, _SHORT) is None:
            return None
        return Attribute(key=key, values=dropped.kept((_unless_long(v, _TEXT) for v in values), MAX_VALUES))

    return dropped.kept((one(key, values) for key, values in spec.attributes.others().items()), MAX_ATTRIBUTES)


def _unless_long(text: str, limit: int) -> str | None:
    """The text, or None if it is too long."""
    return text if len(text) <= limit else None


def _without_error(service: Service) -> Service:
    return service.model_copy(update={"last_error": None})


def _without_details(service: Service) -> Service:
    if service.state == "Running":
        return service
    bare: dict[str, Any] = {"languages": (), "rules": (), "attributes": (), "model": None, "version": None}
    return service.model_copy(update=bare)


def _nothing(service: Service) -> Service | None:
    return service if service.state == "Running" else None


def _bytes(service: Service | None) -> int:
    return _size(service.model_dump(mode="json", by_alias=True)) + 1 if service else 0


def _size(plain: dict[str, Any]) -> int:
    return len(json.dumps(plain))
