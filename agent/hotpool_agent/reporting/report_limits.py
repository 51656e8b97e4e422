"""Bounds of a report (requirement B11): pure.

An item that breaks a bound is left out and counted; the rest of the report stays. Above 64 KiB details are left out
in a fixed order, capabilities never. Languages are normalised here, because an invalid language is such an item, too.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any, Final, TypeVar

from pydantic import ValidationError

from hotpool.api.capability import (
    MAX_ATTRIBUTES,
    MAX_BLOCKED,
    MAX_LANGUAGES,
    MAX_RULES,
    MAX_SERVICES,
    MAX_VALUES,
    REPORT_BYTES,
    Attribute,
    PodReference,
    Report,
    Service,
    TranslationRule,
)
from hotpool.api.languages import normalise_language
from hotpool_agent.catalogue.model import Rule, ServiceSpec
from hotpool_agent.catalogue.pair_syntax import normalise_pair
from hotpool_agent.services.status import ServiceStatus
from hotpool_agent.untrusted_text import readable

T = TypeVar("T")

_SHORT_MAX: Final = 63
_TEXT_MAX: Final = 253
_LONG_TEXT_MAX: Final = 1024
_STAMP_BYTES: Final = 256
"""Bytes reserved for the stamps and the envelope of a report."""
_HEADER_BYTES: Final = 4096
"""Bytes reserved for all but the services of a report: platform, hardware, types that are not ready."""
_CAPABILITY_BYTES: Final = 160
"""Bytes that a running service adds to the capabilities: its id, and its type if it is the first of the type."""


class DropCounter:
    """Counter of items that were left out. `items`: one line for people about each place."""

    def __init__(self) -> None:
        self.count = 0
        self.items: list[str] = []

    def add(self, place: str, number: int = 1) -> None:
        """Count items of the place."""
        if number > 0:
            self.count += number
            self.items.append(f"{place}: {number} invalid or too many" if number > 1 else f"{place}: invalid")

    def limit_text(self, text: str | None, place: str) -> str | None:
        """Return the text, or None if it is too long, which counts as one item left out."""
        if text is None or len(text) <= _TEXT_MAX:
            return text
        self.add(place)
        return None

    def limit_items(self, items: Iterable[T | None], limit: int, place: str) -> tuple[T, ...]:
        """Return at most `limit` valid items and count the others. None stands for an invalid item."""
        candidates = list(items)
        valid = [item for item in candidates if item is not None]
        self.add(place, len(candidates) - min(len(valid), limit))
        return tuple(valid[:limit])


def bounded_services(
    statuses: Sequence[ServiceStatus], dropped: DropCounter
) -> tuple[tuple[Service, ...], frozenset[str]]:
    """Return the services as the report holds them, normalised and within bounds, and the ids of invalid ones."""
    services = [(status.spec.id, _service(status, dropped)) for status in statuses]
    valid = [service for _, service in services if service]
    invalid = frozenset(identifier for identifier, service in services if service is None)
    return dropped.limit_items(valid, MAX_SERVICES, "services"), invalid


def fitting(statuses: Sequence[ServiceStatus], limit: int = REPORT_BYTES) -> tuple[list[ServiceStatus], list[str]]:
    """Return the services that fit into a report of `limit` bytes, and the pods that do not.

    Entries of the catalogue always fit: they are few, and written by the node's administrators. Pods are taken in their
    order, so that a new pod displaces no other. A service that does not run needs no room: `truncate` leaves it out.
    """
    if all(status.pod is None for status in statuses):
        return list(statuses), []
    room = limit - _STAMP_BYTES - _HEADER_BYTES - sum(_reserved_bytes(item) for item in statuses if item.pod is None)
    left_out: list[str] = []
    for status in statuses:
        if status.pod is None:
            continue
        if (size := _reserved_bytes(status)) <= room:
            room -= size
        else:
            left_out.append(status.pod)
    return [status for status in statuses if status.pod not in left_out], left_out


def _reserved_bytes(status: ServiceStatus) -> int:
    return _json_bytes(_service(status, DropCounter())) + _CAPABILITY_BYTES if status.state == "Running" else 0


def truncate(report: Report, limit: int = REPORT_BYTES) -> Report:
    """Return the report in at most `limit` bytes of JSON, if possible. `truncated` counts what was left out.

    Left out are, in this order: last errors, details of services that do not run, those services. Running services are
    never left out, so a report of very many of them may be larger. The bounds of the schema still hold.
    """
    excess = _json_bytes(report) + _STAMP_BYTES - limit
    if excess <= 0:
        return report
    services: list[Service | None] = list(report.services)
    count = 0
    for shorten in (_without_error, _without_details, _running_only):
        for index in reversed(range(len(services))):
            service = services[index]
            if excess > 0 and service is not None and (shorter := shorten(service)) != service:
                excess -= _json_bytes(service) - _json_bytes(shorter)
                services[index] = shorter
                count += 1
    kept = tuple(service for service in services if service is not None)
    return report.model_copy(update={"services": kept, "truncated": count})


def _service(status: ServiceStatus, dropped: DropCounter) -> Service | None:
    """Return the service within bounds, or None if it is invalid."""
    if status.dropped:
        dropped.add(f"{status.spec.id}: annotations", status.dropped)
    try:
        return _bounded(status, dropped)
    except ValidationError as error:
        dropped.add(f"{readable(status.spec.id, _SHORT_MAX)}: {'.'.join(map(str, error.errors()[0]['loc']))}")
        return None


def _bounded(status: ServiceStatus, dropped: DropCounter) -> Service:
    spec, place = status.spec, status.spec.id
    return Service(
        id=spec.id,
        type=spec.type,
        device=spec.device,
        state=status.state,
        since=_readable(status.since),
        port=spec.port,
        pid=status.pid,
        version=dropped.limit_text(spec.version, f"{place}: version"),
        model=dropped.limit_text(spec.model, f"{place}: model"),
        restarts=status.restarts,
        last_error=readable(status.last_error, _LONG_TEXT_MAX) if status.last_error else None,
        desired=_readable(status.desired),
        desired_by=_readable(status.desired_by),
        request_id=_readable(status.request_id),
        languages=_languages(spec.attributes.languages, dropped, place),
        rules=dropped.limit_items(
            (_rule(rule, dropped, place) for rule in spec.attributes.rules), MAX_RULES, f"{place}: rules"
        ),
        attributes=_attributes(spec, dropped),
        endpoint=status.endpoint,
        endpoint_reason=status.endpoint_reason,
        max_concurrent=spec.max_concurrent,
        pod=_pod(status),
        in_flight=status.in_flight,
    )


def _pod(status: "ServiceStatus") -> PodReference | None:
    if status.pod is None or status.pod_uid is None:
        return None
    namespace, _, name = status.pod.partition("/")
    return PodReference(namespace=namespace, name=name, uid=status.pod_uid)


def _languages(codes: Iterable[str], dropped: DropCounter, place: str) -> tuple[str, ...]:
    # `auto` is not a language, so leaving it out is not counted.
    normalised = [code for raw in codes if (code := normalise_language(raw))]
    limited = (code if len(code) <= _SHORT_MAX else None for code in dict.fromkeys(normalised))
    return dropped.limit_items(limited, MAX_LANGUAGES, f"{place}: languages")


def _rule(rule: Rule, dropped: DropCounter, place: str) -> TranslationRule | None:
    # Leaving out one blocked pair would allow it, so the whole rule is left out.
    if len(rule.blocked) > MAX_BLOCKED:
        return None
    return TranslationRule(
        kind=rule.kind,
        languages=_languages(rule.languages, dropped, f"{place}: rules"),
        pairs=_pairs(rule.pairs, dropped, place),
        blocked=_pairs(rule.blocked, dropped, place),
    )


def _pairs(pairs: Iterable[str], dropped: DropCounter, place: str) -> tuple[str, ...]:
    normalised = dict.fromkeys(normalise_pair(pair) for pair in pairs)
    return dropped.limit_items(normalised, MAX_BLOCKED, f"{place}: pairs of a rule")


def _attributes(spec: ServiceSpec, dropped: DropCounter) -> tuple[Attribute, ...]:
    def bounded(key: str, values: Iterable[str]) -> Attribute | None:
        if len(key) > _SHORT_MAX:
            return None
        limited = (value if len(value) <= _TEXT_MAX else None for value in values)
        return Attribute(key=key, values=dropped.limit_items(limited, MAX_VALUES, f"{spec.id}: attribute {key}"))

    others = spec.attributes.others().items()
    return dropped.limit_items(
        (bounded(key, values) for key, values in others), MAX_ATTRIBUTES, f"{spec.id}: attributes"
    )


def _readable(text: str | None) -> str | None:
    """Return a text of the state file or of the node's object as the report can hold it."""
    return readable(text, _TEXT_MAX) if text else text


def _without_error(service: Service) -> Service:
    return service.model_copy(update={"last_error": None})


def _without_details(service: Service) -> Service:
    if service.state == "Running":
        return service
    stripped: dict[str, Any] = {
        "languages": (),
        "rules": (),
        "attributes": (),
        "model": None,
        "version": None,
        "pod": None,
    }
    return service.model_copy(update=stripped)


def _running_only(service: Service) -> Service | None:
    return service if service.state == "Running" else None


def _json_bytes(item: Report | Service | None) -> int:
    """Return the length of the JSON form and of a comma."""
    return len(json.dumps(item.model_dump(mode="json", by_alias=True))) + 1 if item else 0
